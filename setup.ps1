<#
.SYNOPSIS
Makes .venv with everything locked, as `make setup` does elsewhere: about 8 GB, most of it torch.

.DESCRIPTION
Does nothing if .venv is newer than the lock. If it is interrupted, run it again.

.PARAMETER Python
The Python to use, 3.11 or newer. Default: the newest one of the launcher py, else python.

.PARAMETER TorchIndex
Index with other wheels of torch, such as those for CPUs, which need no CUDA. They are not checked.

.PARAMETER TorchHashes
Requirements file with the hashes of the wheels of TorchIndex. Then they are checked.

.EXAMPLE
.\setup.ps1 -Python C:\Python311\python.exe
#>
[CmdletBinding()]
param(
    [string]$Python = '',
    [string]$TorchIndex = '',
    [string]$TorchHashes = ''
)

Set-StrictMode -Version 2.0
$ErrorActionPreference = 'Stop'
Set-Location -LiteralPath $PSScriptRoot

$venvPython = '.venv\Scripts\python.exe'
$stamp = '.venv\.installed'
$lock = 'requirements\dev.txt'

function Invoke-Checked([string]$Program, [string[]]$Arguments) {
    & $Program @Arguments
    if ($LASTEXITCODE -ne 0) {
        Write-Host "setup: $Program failed with exit code $LASTEXITCODE"
        exit 1
    }
}

function Find-Python {
    if ($Python -ne '') { return $Python }
    foreach ($name in @('py', 'python')) {
        if (Get-Command $name -ErrorAction SilentlyContinue) { return $name }
    }
    Write-Host 'setup: patchserve needs Python 3.11 or newer; install it, or name one with -Python'
    exit 1
}

function Test-UpToDate {
    if (-not (Test-Path -LiteralPath $stamp)) { return $false }
    $made = (Get-Item -LiteralPath $stamp).LastWriteTimeUtc
    foreach ($source in @($lock, 'pyproject.toml')) {
        if ((Get-Item -LiteralPath $source).LastWriteTimeUtc -gt $made) { return $false }
    }
    return $true
}

if (Test-UpToDate) { exit 0 }

$found = Find-Python
$check = 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "patchserve needs Python 3.11 or newer; name one with -Python")'
Invoke-Checked $found @('-c', $check)

if (Test-Path -LiteralPath $stamp) {
    Remove-Item -LiteralPath $stamp
} else {
    # An environment without its stamp was interrupted: start again.
    Invoke-Checked $found @('-m', 'venv', '--clear', '.venv')
}

$install = @('tools\install_lock.py', $lock)
if ($TorchIndex -ne '') { $install += @('--torch-index', $TorchIndex) }
if ($TorchHashes -ne '') { $install += @('--torch-hashes', $TorchHashes) }
Invoke-Checked $venvPython $install
Invoke-Checked $venvPython @('-m', 'pip', 'install', '--no-deps', '--no-build-isolation', '-e', '.')
New-Item -ItemType File -Path $stamp -Force | Out-Null
exit 0
