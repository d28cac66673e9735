<#
.SYNOPSIS
Does what `make demo`, `make serve` and `make test` do elsewhere, after setup.ps1.

.PARAMETER Target
demo: start a server, inspect sample parcels over gRPC, write out\demo; serve: start the server with the best available
backbone, gRPC on 50051, its page on http://127.0.0.1:8080; test: run the tests.

.PARAMETER Arguments
Passed on to the command behind the target.

.EXAMPLE
.\run.ps1 demo --open

.EXAMPLE
.\run.ps1 serve --store references
#>
param(
    [Parameter(Mandatory = $true, Position = 0)]
    [ValidateSet('demo', 'serve', 'test')]
    [string]$Target,

    [Parameter(ValueFromRemainingArguments = $true)]
    [string[]]$Arguments = @()
)

Set-StrictMode -Version 2.0
$ErrorActionPreference = 'Stop'
Set-Location -LiteralPath $PSScriptRoot

& "$PSScriptRoot\setup.ps1"
if ($LASTEXITCODE -ne 0) { exit $LASTEXITCODE }

$python = '.venv\Scripts\python.exe'
switch ($Target) {
    'demo' { & $python 'samples\demo.py' @Arguments }
    'serve' { & '.venv\Scripts\patchserve-server.exe' serve --backbone auto --http-port 8080 @Arguments }
    'test' { & $python -m pytest -n 2 --dist loadfile --no-loadscope-reorder @Arguments }
}
exit $LASTEXITCODE
