"""The web page: files are dropped in a browser, the pipelines process them. Only this package imports starlette."""
