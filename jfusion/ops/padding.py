"""How many zeros convolutions with steps put around their input: three conventions."""

Pair = tuple[int, int]

CONVENTIONS = ("same", "even", "symmetric")


def padding(convention: str, size: Pair, kernel: int, stride: int) -> tuple[Pair, Pair]:
    """Zeros before and after along H and W.

    With a stride of 1 and an odd kernel they are all alike. With a stride of 2, over a map of even
    size, the first two put one zero less before than after.

    Args:
        convention: `same` is TensorFlow's, by the size of the map; `even` is that for maps of even
            size, whatever their size, as Hugging Face's EfficientNet has it; `symmetric` is
            PyTorch's usual one, as many before as after.
        size: H and W of the map.
        kernel: Side of the kernel.
        stride: Step of the kernel.
    """
    if stride == 1 or convention == "symmetric":
        return (((kernel - 1) // 2, kernel // 2),) * 2
    if convention == "even":
        return ((kernel // 2 - 1, kernel // 2),) * 2
    if convention == "same":
        return _same(size[0], kernel, stride), _same(size[1], kernel, stride)
    raise ValueError(f"padding {convention!r} is none of {', '.join(CONVENTIONS)}")


def _same(size: int, kernel: int, stride: int) -> Pair:
    total = max(kernel - (size % stride or stride), 0)
    return total // 2, total - total // 2
