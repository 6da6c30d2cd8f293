"""On what kind of disk a file lies: SQLite cannot rely on the locks of some."""

from __future__ import annotations

from pathlib import Path

# Several machines, or a host and its guest, may mount these at once: locks and shared memory do not reach the others.
NETWORK = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "coda", "davfs", "ncpfs"),
        *("ceph", "glusterfs", "lustre", "gpfs", "beegfs", "orangefs", "pvfs2"),
        *("virtiofs", "vboxsf", "vmhgfs", "prl_fs"),
        *(
            "fuse.sshfs",
            "fuse.davfs",
            "fuse.curlftpfs",
            "fuse.rclone",
            "fuse.s3fs",
            "fuse.goofys",
            "fuse.mountpoint-s3",
        ),
        *("fuse.gcsfuse", "fuse.blobfuse", "fuse.blobfuse2", "fuse.juicefs", "fuse.ceph", "fuse.ceph-fuse"),
        *("fuse.glusterfs", "fuse.vmhgfs-fuse", "fuse.gvfsd-fuse", "fuse.grpcfuse"),
    }
)


def network_file_system(path: str) -> str | None:
    """Return the kind of network file system that a path lies on; ``None`` when it is a local one, as far as known."""
    kind = file_system(path)
    return kind if kind in NETWORK else None


def file_system(path: str, mounts: str = "/proc/self/mounts") -> str | None:
    """Return the kind of file system that a path lies on, where the kernel tells."""
    try:
        lines = Path(mounts).read_text("utf-8", "replace").splitlines()
    except OSError:
        return None
    found: dict[str, str] = {}
    for line in lines:
        _, place, kind, *_ = line.split(" ")
        place = place.replace("\\040", " ")
        if place in {"/", path} or path.startswith(f"{place}/"):
            found[place] = kind
    return found[max(found, key=len)] if found else None
