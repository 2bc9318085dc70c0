"""Writes what is in an image as a CycloneDX document: Python's packages, Debian's, and the model.

Rules:
- It is made of what is installed in the image, not of what was asked for.
- A hash is that of the archive which a package was installed from.
- The same image of the same commit gives the same document: its date is the commit's.
- Debian's packages are named with their versions. Their licences are in each package's
  `/usr/share/doc/PACKAGE/copyright` in the image, which no program reads reliably.
"""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from cyclonedx.factory.license import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import License
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from deploy.release.checks import Commit
from deploy.release.licences import is_expression, licences


def sbom(name: str, version: str, image_id: str, commit: Commit, inside: dict[str, Any]) -> str:
    """The document, as JSON. ``inside`` is the image's inventory."""
    image = Component(
        type=ComponentType.CONTAINER,
        name=name,
        version=version,
        bom_ref=name,
        licenses=_licenses(["Apache-2.0"]),
        properties=[
            Property(name="sightline:image-id", value=image_id),
            Property(name="sightline:revision", value=commit.revision),
        ],
    )
    bom = Bom(serial_number=uuid5(NAMESPACE_URL, f"{name}:{version}:{commit.revision}"))
    bom.metadata.component = image
    bom.metadata.timestamp = datetime.fromtimestamp(commit.epoch_s, UTC)
    parts = [
        _python(inside["python"]),
        *map(_package, inside["packages"]),
        *(_debian(*listed) for listed in inside["debian"]),
        *map(_bundle, inside["bundles"]),
    ]
    bom.components.update(parts)
    bom.register_dependency(image, parts)
    text = str(JsonV1Dot6(bom).output_as_string(indent=2))
    wrong = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if wrong is not None:
        raise ValueError(f"this is no CycloneDX document: {wrong}")
    return json.dumps(json.loads(text), indent=2) + "\n"


def _licenses(names: list[str]) -> list[License]:
    """A component has either one expression or any number of names."""
    make = LicenseFactory()
    if len(names) > 1 and all(map(is_expression, names)):
        names = [" AND ".join(f"({name})" if " " in name else name for name in names)]
    return [
        make.make_from_string(name) if is_expression(name) else make.make_with_name(name)
        for name in names
    ]


def _python(version: str) -> Component:
    url = PackageURL("generic", name="python", version=version)
    return Component(
        type=ComponentType.PLATFORM,
        name="python",
        version=version,
        bom_ref=str(url),
        purl=url,
        licenses=_licenses(["PSF-2.0"]),
    )


def _package(package: dict[str, Any]) -> Component:
    url = PackageURL("pypi", name=package["name"], version=package["version"])
    digest = package["sha256"]
    return Component(
        type=ComponentType.LIBRARY,
        name=package["name"],
        version=package["version"],
        description=package["summary"],
        bom_ref=str(url),
        purl=url,
        licenses=_licenses(licences(package)),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)] if digest else [],
    )


def _debian(name: str, version: str, architecture: str) -> Component:
    url = PackageURL("deb", "debian", name=name, version=version, qualifiers={"arch": architecture})
    return Component(
        type=ComponentType.LIBRARY, name=name, version=version, bom_ref=str(url), purl=url
    )


def _bundle(bundle: dict[str, Any]) -> Component:
    name, version, told = bundle["name"], bundle["version"], bundle["provenance"]
    return Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=name,
        version=version,
        bom_ref=f"model/{name}@{version}",
        licenses=_licenses([bundle["licence"]]),
        properties=[Property(name=f"sightline:{key}", value=str(told[key])) for key in told],
    )
