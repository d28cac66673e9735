"""Write a certificate, its authority and a token file into a folder; print the token. Runs in the server's Python."""

import sys
from pathlib import Path

from fakes.certificates import Authority

from patchserve_server.access.tokens import new_token
from patchserve_server.domain.callers import Scope

folder = Path(sys.argv[1])
authority = Authority()
authority.write(folder, "server")
(folder / "ca.pem").write_bytes(authority.certificate)
token, line = new_token("triton", [Scope.INFER])
(folder / "tokens").write_text(line + "\n")
print(token)
