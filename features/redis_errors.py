"""What the driver's exceptions mean: one table."""

from __future__ import annotations

from features.store import StoreMisconfigured, StoreUnavailable

BUG = None
ERRORS: dict[str, type[Exception] | None] = {
    "RedisError": StoreUnavailable,
    "ConnectionError": StoreUnavailable,
    "TimeoutError": StoreUnavailable,
    "BusyLoadingError": StoreUnavailable,
    "MaxConnectionsError": StoreUnavailable,
    "ResponseError": StoreUnavailable,
    "OutOfMemoryError": StoreUnavailable,
    "ReadOnlyError": StoreUnavailable,
    "TryAgainError": StoreUnavailable,
    "ClusterDownError": StoreUnavailable,
    "MasterDownError": StoreUnavailable,
    "InvalidResponse": StoreUnavailable,
    "ExternalAuthProviderError": StoreUnavailable,
    "AskError": StoreUnavailable,  # a cluster that changes: the driver follows it so far
    "MovedError": StoreUnavailable,
    "ClusterError": StoreUnavailable,
    "RedisClusterException": StoreUnavailable,
    "SlotNotCoveredError": StoreUnavailable,
    "AuthenticationError": StoreMisconfigured,
    "AuthenticationWrongNumberOfArgsError": StoreMisconfigured,
    "AuthorizationError": StoreMisconfigured,
    "NoPermissionError": StoreMisconfigured,
    "ModuleError": StoreMisconfigured,
    "ClusterCrossSlotError": BUG,
    "CrossSlotTransactionError": BUG,
    "InvalidPipelineStack": BUG,
    "IncorrectPolicyType": BUG,
    "DataError": BUG,
    "ExecAbortError": BUG,
    "NoScriptError": BUG,
    "NoSuchFieldsetError": BUG,
    "PubSubError": BUG,
    "WatchError": BUG,
    "LockError": BUG,
    "LockNotOwnedError": BUG,
    "ChildDeadlockedError": BUG,
}
"""By the name of the class (the driver's releases have different ones); the nearest ancestor decides.

BUG: nothing that the store does can cause it; it propagates as it is.
"""


class FunctionMissing(StoreUnavailable):
    """The server does not have our functions: it was started anew, without what it had."""


def meaning(error: Exception, where: str) -> Exception | None:
    """The contract's exception for one of the driver's, in one line that names the server; None for a bug."""
    said = " ".join(str(error).split()) or type(error).__name__
    if "unction not found" in said:
        return FunctionMissing(f"Redis at {where}: {said}")
    if "unknown command" in said:
        return StoreMisconfigured(f"Redis at {where} is too old ({said}): use 7.0 or later, or Valkey")
    if "SELECT is not allowed in cluster mode" in said:
        one = "is a cluster, which has one database: end WEIR_REDIS with the port"
        return StoreMisconfigured(f"Redis at {where} {one}")
    names = [kind.__name__ for kind in type(error).__mro__]
    kind = next((ERRORS[name] for name in names if name in ERRORS), StoreUnavailable)
    if kind is StoreMisconfigured:
        return kind(f"Redis at {where} refuses: {said}: check WEIR_REDIS and the user's rights")
    return kind(f"Redis at {where}: {said}") if kind else None
