"""`--results` and `--save-anomalies` of `infer` and `stream`."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fakes.disk import *  # placeholder
