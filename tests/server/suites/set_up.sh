#!/bin/sh
# Puts other people's suites, and the packages that they need, into a folder: sh set_up.sh FOLDER
set -eu
folder=$1
mkdir -p "$folder/envs" "$folder/sources"

environment() { # NAME PACKAGE...: a virtual environment of its own, because the suites disagree about versions
    name=$1
    shift
    python3 -m venv "$folder/envs/$name"
    "$folder/envs/$name/bin/python" -m pip install -q "$@"
}

source_of() { # PACKAGE==VERSION: the source distribution, unpacked
    python3 -m pip download -q --no-deps --no-binary :all: -d "$folder/sources" "$1"
    for archive in "$folder"/sources/*.tar.gz; do
        tar -xzf "$archive" -C "$folder/sources" && rm "$archive"
    done
}

environment openai "openai[aiohttp]==3.57.0" pytest pytest-asyncio pytest-xdist respx rich inline-snapshot
environment llama_cpp aiohttp pytest filelock numpy openai prometheus-client requests wget
environment langchain langchain-openai langchain-tests
environment lm_eval "lm-eval[api,hf]"
environment schemathesis schemathesis
source_of openai==3.57.0
source_of llama-cpp-python==0.3.36
