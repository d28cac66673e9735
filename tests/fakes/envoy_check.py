"""What a real Envoy says about a configuration."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from fakes.certificates import Authority
from fakes.programs import program

ENVOY = Path(__file__).resolve().parents[2] / "deploy" / "envoy"


def validated(text: str, folder: Path) -> str:
    """What Envoy says about a configuration, with the paths in it as a folder. Fails if it does not accept it."""
    authority = Authority()
    authority.write(folder, "tls")
    (folder / "ca.crt").write_bytes(authority.certificate)
    (folder / "endpoints.yaml").write_text((ENVOY / "endpoints.yaml").read_text())
    text = re.sub("(tls|client)/tls[.]crt", "tls.pem", text)
    (folder / "envoy.yaml").write_text(re.sub("/etc/envoy(/tls|/servers|/client)?(?=/)", str(folder), text))
    command = [program("envoy"), "--mode", "validate", "-c", f"{folder}/envoy.yaml"]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert checked.returncode == 0, checked.stderr
    return checked.stderr
