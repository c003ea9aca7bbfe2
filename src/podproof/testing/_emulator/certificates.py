"""TLS for the emulated API server: a certificate authority and its server certificates."""

from __future__ import annotations

import datetime as dt
import functools
import ipaddress
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NAMES = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost")
ADDRESSES = ("127.0.0.1", "::1")


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _certificate(
    subject: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    extensions: list[tuple[x509.ExtensionType, bool]],
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=365))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder


@dataclass(frozen=True, slots=True)
class CertificateAuthority:
    """A certificate authority: its name, its key, and its own certificate in PEM."""

    name: str
    key: ec.EllipticCurvePrivateKey
    pem: str

    def server_context(self, names: tuple[str, ...] = NAMES, addresses: tuple[str, ...] = ADDRESSES) -> ssl.SSLContext:
        """Return a server's TLS context with a new key and a certificate for these names and addresses."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # The ssl module loads a key from a file only.
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory, "server.pem")
            path.touch(mode=0o600)
            path.write_bytes(self.server_pem(names, addresses))
            context.load_cert_chain(path)
        return context

    def server_pem(self, names: tuple[str, ...], addresses: tuple[str, ...] = ()) -> bytes:
        """Return a new private key, and a server's certificate for these names and addresses, in PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
        alternatives += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
        certificate = _certificate(
            "kube-apiserver",
            key,
            self.name,
            [
                (x509.SubjectAlternativeName(alternatives), False),
                (x509.BasicConstraints(ca=False, path_length=None), True),
                (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
                (x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), False),
            ],
        ).sign(self.key, SHA256())
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return private + certificate.public_bytes(Encoding.PEM)


def authority(name: str) -> CertificateAuthority:
    """Return a new certificate authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    constraints = x509.BasicConstraints(ca=True, path_length=None)
    certificate = _certificate(name, key, name, [(constraints, True), (usage, True)]).sign(key, SHA256())
    return CertificateAuthority(name, key, certificate.public_bytes(Encoding.PEM).decode())


@functools.cache
def cluster_authority() -> CertificateAuthority:
    """Return the certificate authority that all emulated clusters of this process share."""
    return authority("kubernetes")


@functools.cache
def cluster_context() -> ssl.SSLContext:
    """Return the TLS context that all emulated clusters of this process share."""
    return cluster_authority().server_context()
