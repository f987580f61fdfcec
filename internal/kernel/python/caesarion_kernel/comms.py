"""Comms: the comm package's classes, publishing through this kernel."""

from .encode import dumps


def attach(kernel, comm):
    """Called once, when the comm package has been imported."""
    from comm.base_comm import BaseComm, CommManager

    class Comm(BaseComm):
        def publish_msg(self, msg_type, data=None, metadata=None, buffers=None, **keys):
            content = {"data": data or {}, "comm_id": self.comm_id, **keys}
            kernel.publish(msg_type, content, metadata=dumps(metadata or {}), buffers=buffers)

    manager = CommManager()
    comm.create_comm = Comm
    comm.get_comm_manager = lambda: manager
    kernel.comm_manager = manager


def handle(kernel, msg_type, frame):
    """comm_open, comm_msg and comm_close of the client. ImportError if there is no comm package."""
    if kernel.comm_manager is None:
        import comm  # noqa: F401  (the import hook calls attach)
    getattr(kernel.comm_manager, msg_type)(None, None, frame)
