"""Bodies at rest: as they came, or encrypted by a key of the application's."""

from __future__ import annotations

from typing import Protocol

from roovet_webhooks.errors import ConfigurationError, MalformedPayload

PLAIN = ""
ENCRYPTED = "encrypted"


class Codec(Protocol):
    """What encrypts bodies at rest; ``cryptography.fernet.MultiFernet`` is one."""

    def encrypt(self, data: bytes, /) -> bytes:
        """Return the token of a body."""
        ...

    def decrypt(self, token: bytes, /) -> bytes:
        """Return the body of a token, or raise."""
        ...


class Bodies:
    """Encodes bodies for the record and decodes them again.

    Args:
        codec: What encrypts them; ``None`` keeps them as they came.

    Raises:
        ConfigurationError: It cannot encrypt and decrypt.
    """

    def __init__(self, codec: Codec | None) -> None:
        if codec is not None and not all(callable(getattr(codec, name, None)) for name in ("encrypt", "decrypt")):
            message = f"codec must have encrypt and decrypt, as MultiFernet has; {type(codec).__name__} has not"
            raise ConfigurationError(message)
        self._codec = codec

    @property
    def encrypts(self) -> bool:
        """Whether what is encoded is encrypted."""
        return self._codec is not None

    def encode(self, raw: bytes) -> tuple[str, bytes]:
        """Return the codec's name and the encoded body."""
        return (PLAIN, raw) if self._codec is None else (ENCRYPTED, self._codec.encrypt(raw))

    def decode(self, name: str, body: bytes) -> bytes:
        """Return the body that was encoded under a name.

        Raises:
            ConfigurationError: It was encrypted, and here is nothing that could decrypt it.
            MalformedPayload: It cannot be decrypted with the codec that is here.
        """
        if name == PLAIN:
            return body
        if self._codec is None:
            # No fault of the delivery's: whoever forgot the codec would else bury all that there is.
            message = "the body is encrypted, and the inbox has no codec: give it the one it was recorded with"
            raise ConfigurationError(message)
        try:
            return self._codec.decrypt(body)
        except Exception as error:  # noqa: BLE001 - each codec has its own
            message = f"the body cannot be decrypted with the codec that the inbox has: {type(error).__name__}"
            raise MalformedPayload(message) from None
