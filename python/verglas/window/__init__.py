"""The window: a small web server that shows the jobs of folders as they are, and lets a person decide.

The files of the jobs stay the truth: nothing is kept in the server, so nothing is lost when it ends. Needs the extra
``serve`` (Starlette and uvicorn), which is loaded on first use.
"""
