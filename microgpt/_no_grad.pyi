from types import TracebackType
from typing import Literal, final

@final
class no_grad:
    def __enter__(self) -> no_grad: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]: ...
