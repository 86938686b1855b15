@echo off
rem Starts clusters of two and of three nodes by hand, uses them, kills a leader, and looks for every acknowledged record:
rem
rem     tests\test_cluster.bat [KELDA.EXE]
rem
rem It does what tests/test_cluster.sh does, with cmd and the PowerShell 5.1 that is part of Windows. It was written without
rem a Windows machine and HAS NOT BEEN RUN. There is no kelda.exe yet either: the broker calls Unix (signals, free disk space,
rem blocks of files). On Windows a process can not be told to stop in order by another one, so where the .sh stops nodes by
rem SIGTERM this one ends them at once, which loses nothing.
setlocal EnableExtensions
set "KELDA=%~1"
if "%KELDA%"=="" set "KELDA=%~dp0..\target\release\kelda.exe"
if not exist "%KELDA%" (
    echo no "%KELDA%": build it, or name another kelda binary 1>&2
    exit /b 2
)
for %%I in ("%KELDA%") do set "KELDA=%%~fI"
set "KELDA_TEST_SCRIPT=%~f0"
rem What follows the mark below is PowerShell. It is read from this file, since cmd has no loops that wait.
powershell.exe -NoLogo -NoProfile -NonInteractive -ExecutionPolicy Bypass -Command ^
    "$text = [IO.File]::ReadAllText($env:KELDA_TEST_SCRIPT); $mark = '#' + '---'; & ([ScriptBlock]::Create($text.Substring($text.IndexOf($mark))))"
exit /b %ERRORLEVEL%

#--- PowerShell from here on.
$ErrorActionPreference = 'Stop'
$kelda = $env:KELDA
# The environment of who runs this configures no node.
Get-ChildItem Env:KELDA* | ForEach-Object { Remove-Item "Env:$($_.Name)" }
$work = Join-Path ([IO.Path]::GetTempPath()) ('kelda-' + [Guid]::NewGuid().ToString('N'))
[void](New-Item -ItemType Directory -Path $work)
Push-Location $work
$nodes = @{}
$script:steps = 0

function Ok($what) {
    $script:steps++
    Write-Host "ok: $what"
}

function Fail($what) { throw $what }

function Server($n) { "127.0.0.1:$(8080 + $n)" }

# Node N, which joins node 1 if it is another one.
function Start-Node($n) {
    $arguments = @('serve', '--node-id', "node$n", '--port', (8080 + $n), '--cluster-port', (7965 + $n),
        '--address', '127.0.0.1', '--data-dir', "data-node$n")
    if ($n -ne 1) { $arguments += @('--seeds', '127.0.0.1:7966') }
    $starts = @(Get-ChildItem "node$n.*.err.log" -ErrorAction SilentlyContinue).Count
    $nodes[$n] = Start-Process -FilePath $kelda -ArgumentList $arguments -PassThru -WindowStyle Hidden `
        -RedirectStandardOutput "node$n.$starts.out.log" -RedirectStandardError "node$n.$starts.err.log"
}

function Stop-Node($n) {
    $process = $nodes[$n]
    if (-not $process.HasExited) { $process.Kill() }
    $process.WaitForExit()
    $nodes.Remove($n)
}

function Stop-All {
    foreach ($n in @($nodes.Keys)) {
        if ($nodes[$n].HasExited) { Fail "node $n has ended by itself" }
        Stop-Node $n
    }
    Remove-Item -Recurse -Force data-node*
    Remove-Item -Force *.log
    Ok 'all nodes are stopped'
}

# Until the condition holds, for at most half a minute.
function Wait-For($what, [ScriptBlock]$condition) {
    $deadline = (Get-Date).AddSeconds(30)
    while ($true) {
        $holds = $false
        try { $holds = & $condition } catch { $holds = $false }
        if ($holds) { break }
        if ((Get-Date) -gt $deadline) { Fail "not within 30 s: $what" }
        Start-Sleep -Milliseconds 100
    }
    Ok $what
}

# The output of a command, which must succeed, as lines.
function Kelda {
    # What it says on standard error must not end this script: PowerShell 5.1 takes it for an error of its own.
    $ErrorActionPreference = 'Continue'
    $output = & $kelda @args 2>$null
    if ($LASTEXITCODE -ne 0) { throw "kelda $args ended with $LASTEXITCODE" }
    ,@($output)
}

function Json { (Kelda @args) -join "`n" | ConvertFrom-Json }

function Page($n, $path) { Invoke-RestMethod -UseBasicParsing -TimeoutSec 5 "http://$(Server $n)$path" }

function Sees($n, $count) { (Json cluster status -o json --server (Server $n)).node_count -eq $count }

# Writes numbers, one a line, as bytes that no encoding changes.
function Write-Numbers($file, $first, $last) {
    [IO.File]::WriteAllText((Join-Path $work $file), ((($first..$last) -join "`n") + "`n"), (New-Object Text.ASCIIEncoding))
}

# The cluster of that many nodes is of one piece.
function Use-Nodes($count) {
    foreach ($n in 1..$count) { Start-Node $n }
    $id = $null
    foreach ($n in 1..$count) {
        Wait-For "node $n of $count is healthy" { (Page $n '/health').status -eq 'serving' }
        Wait-For "node $n of $count sees all nodes" { Sees $n $count }
        $own = (Page $n '/cluster/status').cluster_id
        if ($n -eq 1) { $id = $own }
        if ($own -ne $id) { Fail "node $n is of another cluster" }
    }
    Ok "all $count nodes are of one cluster"
}

$status = 0
try {
    Use-Nodes 2
    [void](Kelda topic create orders --partitions 2 --replication-factor 1 --server (Server 2))
    Write-Numbers 'first' 1 1000
    [void](Kelda produce orders --file first --server (Server 2))
    if (@((Kelda consume orders --server (Server 1)) | Sort-Object -Unique).Count -ne 1000) { Fail 'records are missing' }
    Ok 'what one of two nodes takes, the other gives'
    Stop-All

    Use-Nodes 3
    $servers = (1..3 | ForEach-Object { Server $_ }) -join ','
    [void](Kelda topic create orders --partitions 1 --replication-factor 3 --server (Server 3))
    [void](Kelda produce orders --file first --server (Server 2))
    if ((Kelda consume orders --server (Server 1)).Count -ne 1000) { Fail 'records are missing' }
    Ok 'records at one of three nodes are read at another'

    # The leader dies while records come in: through a pipe, so that they come slowly.
    $leader = (Json topic describe orders -o json --server (Server 1)).partitions[0].leader
    $name = (Json cluster nodes -o json --server (Server 1) | ForEach-Object { $_ } | Where-Object { $_.id -eq $leader }).name
    $killed = [int]($name -replace '^node', '')
    $load = New-Object Diagnostics.Process
    $load.StartInfo.FileName = $kelda
    $load.StartInfo.Arguments = "produce orders --server $servers -o json"
    $load.StartInfo.UseShellExecute = $false
    $load.StartInfo.RedirectStandardInput = $true
    $load.StartInfo.RedirectStandardOutput = $true
    [void]$load.Start()
    $load.StandardInput.NewLine = "`n"
    foreach ($number in 1001..6000) {
        $load.StandardInput.WriteLine($number)
        if ($number % 50 -eq 0) {
            $load.StandardInput.Flush()
            Start-Sleep -Milliseconds 50
        }
        if ($number -eq 2000) { Stop-Node $killed }
    }
    $load.StandardInput.Close()
    $summary = $load.StandardOutput.ReadToEnd()
    $load.WaitForExit()
    if ($load.ExitCode -ne 0) { Fail "not every record was acknowledged: $summary" }
    if (($summary | ConvertFrom-Json).acknowledged -ne 5000) { Fail "not 5000 were acknowledged: $summary" }
    Ok "a load goes on while its leader, node $killed, is killed"
    $other = $killed % 3 + 1
    $after = (Kelda consume orders --server (Server $other)) -join ','
    if ($after -ne ((1..6000) -join ',')) { Fail 'records are missing, doubled or out of order' }
    Ok 'all acknowledged records are there, once and in order'
    Start-Node $killed
    Wait-For "node $killed is back" { Sees $killed 3 }
    Stop-All
    Write-Host "$script:steps steps passed"
} catch {
    $status = 1
    [Console]::Error.WriteLine("FAILED after $script:steps steps: $_")
    Get-ChildItem *.err.log -ErrorAction SilentlyContinue | ForEach-Object {
        [Console]::Error.WriteLine("--- $($_.Name)")
        Get-Content $_.FullName -Tail 15 | ForEach-Object { [Console]::Error.WriteLine($_) }
    }
} finally {
    foreach ($n in @($nodes.Keys)) { Stop-Node $n }
    Pop-Location
    Remove-Item -Recurse -Force $work -ErrorAction SilentlyContinue
}
exit $status
