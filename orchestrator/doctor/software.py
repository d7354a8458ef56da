"""Do all hosts run the same software?"""

from collections.abc import Iterator, Mapping

from orchestrator.doctor.finding import Finding, fine, wrong

_COMPARED = ("python", "ray", "torch", "crypten", "transformers", "numpy", "code")


def software(driver: Mapping[str, str], hosts: Mapping[str, Mapping[str, str]]) -> Iterator[Finding]:
    """A row for each host.

    Args:
        driver: `installed_versions` of the process that drives the run.
        hosts: Those of each host, by its name.
    """
    same = ", ".join(f"{name} {driver[name]}" for name in _COMPARED if name in driver)
    for host, found in hosts.items():
        differing = [name for name in _COMPARED if found.get(name) != driver.get(name)]
        if not differing:
            yield fine("versions", host, same)
            continue
        differences = [
            f"{name} {found.get(name, 'missing')}, the driver has {driver.get(name, 'none')}" for name in differing
        ]
        yield wrong("versions", host, "; ".join(differences), _fix(differing, driver))


def _fix(differing: list[str], driver: Mapping[str, str]) -> str:
    install = [f"{name}=={driver[name]}" for name in differing if name not in ("python", "code") and name in driver]
    steps = []
    if "python" in differing:
        steps.append(f"give this host Python {driver.get('python')}")
    if install:
        steps.append(f"there: pip install -c constraints.txt {' '.join(install)}")
    if "code" in differing:
        steps.append("install the driver's version of mpcache-bench there, and start Ray anew")
    return "; ".join(steps) or f"take {', '.join(differing)} away there, or install it here too"
