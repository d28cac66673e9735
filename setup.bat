@echo off
rem setup.ps1 for those whose system does not run scripts of PowerShell by a double click.
powershell -NoProfile -ExecutionPolicy Bypass -File "%~dp0setup.ps1" %*
exit /b %ERRORLEVEL%
