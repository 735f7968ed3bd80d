"""A container's inspection without its secrets: what is shown stands in a table, everything else becomes a digest.

Environment, options of log and volume drivers, and every field that this table does not know (newer engines have more)
are replaced by a digest under a key made at this process's start. Equal values have equal digests, so that two
inspections can still be compared; without the key nothing can be guessed and tried.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any

SHOW = True  # the whole value below this key
Table = Mapping[str, Any]


def _shown(names: str) -> dict[str, Any]:
    return dict.fromkeys(names.split(), SHOW)


# Engines 20.10 to 29. A table within a list is for each of its elements.
INSPECTION: Table = {
    **_shown(
        "Id Created Path Args State Image ResolvConfPath HostnamePath HostsPath LogPath Name RestartCount Driver "
        "Platform MountLabel ProcessLabel AppArmorProfile ExecIDs NetworkSettings Mounts ImageManifestDescriptor"
    ),
    "Config": _shown(
        "Hostname Domainname User AttachStdin AttachStdout AttachStderr ExposedPorts Tty OpenStdin StdinOnce Cmd "
        "Healthcheck ArgsEscaped Image Volumes WorkingDir Entrypoint NetworkDisabled MacAddress OnBuild Labels "
        "StopSignal StopTimeout Shell"
    ),
    "HostConfig": {
        **_shown(
            "Binds ContainerIDFile NetworkMode PortBindings RestartPolicy AutoRemove VolumeDriver VolumesFrom CapAdd "
            "CapDrop CgroupnsMode Dns DnsOptions DnsSearch ExtraHosts GroupAdd IpcMode Cgroup Links OomScoreAdj "
            "PidMode Privileged PublishAllPorts ReadonlyRootfs SecurityOpt StorageOpt Tmpfs UTSMode UsernsMode ShmSize "
            "Sysctls Runtime ConsoleSize Isolation CpuShares Memory NanoCpus CgroupParent BlkioWeight "
            "BlkioWeightDevice BlkioDeviceReadBps BlkioDeviceWriteBps BlkioDeviceReadIOps BlkioDeviceWriteIOps "
            "CpuPeriod CpuQuota CpuRealtimePeriod CpuRealtimeRuntime CpusetCpus CpusetMems Devices DeviceCgroupRules "
            "DeviceRequests KernelMemory KernelMemoryTCP MemoryReservation MemorySwap MemorySwappiness OomKillDisable "
            "PidsLimit Ulimits CpuCount CpuPercent IOMaximumIOps IOMaximumBandwidth MaskedPaths ReadonlyPaths Init"
        ),
        "LogConfig": _shown("Type"),
        "Mounts": {
            **_shown("Type Source Target ReadOnly Consistency BindOptions TmpfsOptions"),
            "VolumeOptions": {**_shown("NoCopy Labels Subpath"), "DriverConfig": _shown("Name")},
        },
    },
    "GraphDriver": _shown("Name"),
}


class Redaction:
    """Digests under one key."""

    def __init__(self, key: bytes) -> None:
        """`key` is kept in memory only: a digest means nothing after a restart."""
        self._key = key

    def digest(self, value: object) -> str:
        """`sha256:` and 16 hexadecimal digits."""
        text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, separators=(",", ":"))
        return "sha256:" + hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()[:16]

    def inspection(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """An inspection as the updater may see it."""
        redacted: dict[str, Any] = self._by(value, INSPECTION)
        if isinstance(value.get("Config"), Mapping):
            redacted["Config"]["Env"] = self.environment(value["Config"].get("Env"))
        return redacted

    def environment(self, entries: Any) -> list[str] | None:
        """`NAME=value` entries with digests for values."""
        if entries is None:
            return None
        parts = (str(entry).partition("=") for entry in entries)
        return [f"{name}={self.digest(value)}" if equals else name for name, equals, value in parts]

    def _by(self, value: Any, table: Table) -> Any:
        if isinstance(value, list):
            return [self._by(each, table) for each in value]
        if not isinstance(value, Mapping):
            return value if value in (None, "") else self.digest(value)
        shown = {}
        for key, each in value.items():
            below = table.get(key)
            if below is SHOW or each is None:
                shown[key] = each
            elif below is None:
                shown[key] = self._hidden(each)
            else:
                shown[key] = self._by(each, below)
        return shown

    def _hidden(self, value: Any) -> Any:
        """Keys stay where the value is an object: they are names of options."""
        if isinstance(value, Mapping):
            return {key: self._hidden(each) for key, each in value.items()}
        return value if value in (None, "") else self.digest(value)
