import sys

print("rows of", *sys.argv[1:])
