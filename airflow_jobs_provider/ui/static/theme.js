// Airflow's own choice of light or dark. Without one, it is that of the system.
const theme = localStorage.getItem("theme");
if (theme === "light" || theme === "dark") document.documentElement.style.colorScheme = theme;
