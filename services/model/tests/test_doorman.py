"""With keys nobody gets in who is not on the list, and those who knock disturb nobody."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import zmq

import wire
from modelserver import health
from modelserver.broker import Broker
from modelserver.config import BrokerConfig, ConfigError, load_keys
from modelserver.keygen import make_keys
from wire.keys import BrokerKeys, PeerKeys

CONTRACT = wire.Contract(
    model="m",
    version="1",
    digest="0123456789abcdef",
    width=2,
    height=2,
    crop=1.0,
    filter="bicubic",
    classes=3,
)


class House:
    """A broker with keys, in a thread, and peers of every kind."""

    def __init__(self, folder: Path) -> None:
        broker, web, model = make_keys(folder)
        broker_keys = load_keys("BROKER_KEYS_FILE", str(broker), BrokerKeys)
        web_keys = load_keys("WEB_KEYS_FILE", str(web), PeerKeys)
        model_keys = load_keys("MODEL_KEYS_FILE", str(model), PeerKeys)
        assert broker_keys is not None
        assert web_keys is not None
        assert model_keys is not None
        self.web, self.model = web_keys, model_keys
        config = BrokerConfig(frontend="tcp://127.0.0.1:*", backend="tcp://127.0.0.1:*")
        self.broker = Broker(config, broker_keys)
        self.context = zmq.Context()
        self._bound = threading.Event()
        self._thread = threading.Thread(target=self.broker.run, args=(self._listening,))
        self._thread.start()
        assert self._bound.wait(5)

    def _listening(self, frontend: str, backend: str) -> None:
        self.frontend, self.backend = frontend, backend
        self._bound.set()

    def knock(self, endpoint: str, keys: PeerKeys | None) -> zmq.Socket[bytes]:
        socket = self.context.socket(zmq.DEALER)
        socket.linger = 0
        if keys is not None:
            socket.curve_publickey = keys.public.encode()
            socket.curve_secretkey = keys.secret.encode()
            socket.curve_serverkey = keys.broker.encode()
        socket.connect(endpoint)
        return socket

    def stop(self) -> None:
        self.broker.stop()
        self._thread.join(5)
        assert not self._thread.is_alive()
        self.context.term()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path / "keys")
    yield house
    house.stop()


def served(house: House, keys: PeerKeys | None, *, wait_ms: int = 5000) -> bool:
    with house.knock(house.frontend, keys) as client:
        say(client, wire.Describe(id="d"))
        return bool(client.poll(wait_ms))


def joins(house: House, keys: PeerKeys | None, *, wait_ms: int = 5000) -> bool:
    """Whether a replica with these keys is heard: a broker pings whom it has let join."""
    ready = wire.Ready(replica="r", contract=CONTRACT, credit=1, device="cpu")
    with house.knock(house.backend, keys) as replica:
        say(replica, ready)
        return bool(replica.poll(wait_ms))


def say(socket: zmq.Socket[bytes], message: wire.Message) -> None:
    # Somebody who has been turned away by now has nobody to say it to, and would wait for ever.
    with suppress(zmq.Again):
        socket.send(wire.encode(message), zmq.DONTWAIT)


def strangers(house: House) -> dict[str, PeerKeys | None]:
    public, secret = (key.decode() for key in zmq.curve_keypair())
    other_public, _ = (key.decode() for key in zmq.curve_keypair())
    return {
        "no key": None,
        "a key of its own": PeerKeys(public=public, secret=secret, broker=house.web.broker),
        "another broker's client": PeerKeys(
            public=house.web.public, secret=house.web.secret, broker=other_public
        ),
    }


def test_whoever_is_on_the_list_is_let_in(house: House) -> None:
    assert served(house, house.web)
    assert joins(house, house.model)


@pytest.mark.parametrize("who", ["no key", "a key of its own", "another broker's client"])
def test_a_stranger_gets_nothing_and_is_counted(house: House, who: str) -> None:
    keys = strangers(house)[who]
    assert not served(house, keys, wait_ms=300)
    assert not joins(house, keys, wait_ms=300)
    eventually(lambda: house.broker.counts["refused_peers"] >= 2)
    assert house.broker.counts["joined"] == 0


def test_a_client_is_no_replica_and_a_replica_no_client(house: House) -> None:
    assert not joins(house, house.web, wait_ms=300)
    assert not served(house, house.model, wait_ms=300)


def test_a_health_check_with_other_keys_comes_to_an_end(house: House, tmp_path: Path) -> None:
    own = load_keys("BROKER_KEYS_FILE", str(tmp_path / "keys" / "broker.json"), BrokerKeys)
    assert health.catalogue(house.frontend, own) is not None
    strange, *_ = make_keys(tmp_path / "others")
    other = load_keys("BROKER_KEYS_FILE", str(strange), BrokerKeys)
    assert health.catalogue(house.frontend, other, timeout_ms=300) is None


def test_a_thousand_knocks_a_second_disturb_nobody(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    keys = strangers(house)["a key of its own"]
    with house.knock(house.frontend, house.web) as client:
        calm = [round_trip(client) for _ in range(200)]
        stop = threading.Event()
        knocks = 0

        def knock() -> None:
            nonlocal knocks
            began = time.monotonic()
            while not stop.is_set():
                house.knock(house.frontend, keys).close()
                knocks += 1
                stop.wait(max(0.0, began + knocks / 1000 - time.monotonic()))

        knocker = threading.Thread(target=knock)
        knocker.start()
        began, busy = time.monotonic(), []
        while knocks < 2000 and time.monotonic() - began < 20:
            busy.append(round_trip(client))
        per_second = knocks / (time.monotonic() - began)
        stop.set()
        knocker.join()
    print(f"{per_second:.0f} knocks a second, worst answer {max(calm) * 1000:.0f} ms calm,")
    print(f"{max(busy) * 1000:.0f} ms while they knock, of {len(busy)} answers")
    assert knocks >= 2000
    assert max(busy) < 0.5
    refusals = [record for record in caplog.records if "turned away" in record.message]
    assert len(refusals) <= 2


def round_trip(client: zmq.Socket[bytes]) -> float:
    began = time.monotonic()
    client.send(wire.encode(wire.Describe(id="d")))
    assert client.poll(5000)
    client.recv()
    return time.monotonic() - began


@pytest.mark.usefixtures("house")
def test_keys_are_not_made_over_others(tmp_path: Path) -> None:
    before = (tmp_path / "keys" / "broker.json").read_bytes()
    with pytest.raises(FileExistsError):
        make_keys(tmp_path / "keys")
    assert (tmp_path / "keys" / "broker.json").read_bytes() == before
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("content", [b"", b"{}", b'{"public": "short"}', b"\xff"])
def test_a_broken_key_file_stops_the_start_and_stays_secret(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "k").write_bytes(content)
    with pytest.raises(ConfigError, match="MODEL_KEYS_FILE") as caught:
        load_keys("MODEL_KEYS_FILE", str(tmp_path / "k"), PeerKeys)
    assert "\n" not in str(caught.value)


def test_a_missing_key_file_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_keys("BROKER_KEYS_FILE", str(tmp_path / "none"), BrokerKeys)


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < deadline, "it did not come true within 5 s"
        time.sleep(0.01)
