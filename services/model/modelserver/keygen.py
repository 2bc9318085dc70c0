"""Makes the key files of a whole service: ``python -m modelserver keys FOLDER``.

One file a part: what that part's KEYS_FILE setting, or one Docker or Kubernetes secret, holds.
Only the folder is closed to other users of this machine. The files are not, because Compose
mounts a secret with the mode of its file, for a container whose user is somebody else here.
"""

from pathlib import Path
from typing import Final

import msgspec
import zmq

from wire.keys import BrokerKeys, PeerKeys

BROKER: Final = "broker.json"
WEB: Final = "web.json"
MODEL: Final = "model.json"


def make_keys(folder: Path) -> list[Path]:
    """Write fresh keys for broker, web and replicas into ``folder``, and say where they are.

    Raises:
        FileExistsError: There are keys already; parts that run would not know the new ones.
    """
    files = [folder / name for name in (BROKER, WEB, MODEL)]
    for file in files:
        if file.exists():
            raise FileExistsError(f"{file} exists already; remove it to make new keys")
    broker_public, broker_secret = _pair()
    peers = []
    for _ in (WEB, MODEL):
        public, secret = _pair()
        peers.append(PeerKeys(public=public, secret=secret, broker=broker_public))
    web, model = peers
    broker = BrokerKeys(
        public=broker_public,
        secret=broker_secret,
        clients=(web.public,),
        replicas=(model.public,),
    )
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    for file, keys in zip(files, (broker, web, model), strict=True):
        file.write_bytes(msgspec.json.format(msgspec.json.encode(keys), indent=2) + b"\n")
        file.chmod(0o644)
    return files


def _pair() -> tuple[str, str]:
    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()
