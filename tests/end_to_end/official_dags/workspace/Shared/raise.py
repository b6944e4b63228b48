# Databricks notebook source
raise ValueError("no such table")
