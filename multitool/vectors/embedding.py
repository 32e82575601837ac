"""The space of a model's token embeddings: its centre, its spread, its principal components.

Everything here depends on the model alone; it is computed at first use and kept.
"""

import threading
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from multitool.errors import UserError

NUMBERS_AT_ONCE = 1 << 21  # a copy of so many stays in the processor's caches


class EmbeddingSpace:
    """The raw input-embedding matrix ``E`` and what follows from it.

    Args:
        E: (V, d_model), before any scaling that the model applies to embeddings; never written.
        numbers_at_once: how many numbers of the matrix are read together.
    """

    def __init__(self, E: Tensor, *, numbers_at_once: int = NUMBERS_AT_ONCE):
        if E.ndim != 2:
            raise ValueError(f"E must be (V, d_model), not {tuple(E.shape)}")
        self.E = E.detach()
        self._rows_at_once = max(1, numbers_at_once // self.d_model)
        self._lock = threading.RLock()
        self._kept: dict[str, object] = {}

    @property
    def n_tokens(self) -> int:
        """V, the number of rows."""
        return self.E.shape[0]

    @property
    def d_model(self) -> int:
        return self.E.shape[1]

    @property
    def centroid(self) -> Tensor:
        """``c``, the mean of all rows: (d_model,), float32. Raises UserError if a row of E is not finite."""
        return self._once("centroid", self._mean)

    @property
    def mean_distance(self) -> float:
        """The mean of ``|E_t - c|`` over all tokens: the scale at which a vector is as far out as a usual token."""
        return self._once("mean_distance", lambda: float(
            sum((rows - self.centroid).norm(dim=1).double().sum() for rows in self._chunks()) / self.n_tokens))

    @property
    def norms(self) -> Tensor:
        """``|E_t|``: (V,), float32."""
        return self._once("norms", lambda: torch.cat([rows.norm(dim=1) for rows in self._chunks()]))

    @property
    def distance_to_centroid(self) -> Tensor:
        """``1 - cos(c, E_t)``: (V,), float32."""
        return self._once("distance_to_centroid", lambda: self.cosine_distance(self.centroid))

    @property
    def components(self) -> Tensor:
        """The unit principal components of the centred rows, one per row, by falling variance: (d_model, d_model).

        A component's sign is arbitrary; here its entry of largest magnitude is positive.
        """
        return self._principal[0]

    @property
    def explained_variance(self) -> Tensor:
        """The share of the rows' variance that each of ``components`` explains: (d_model,), float32; sums to 1."""
        return self._principal[1]

    @property
    def _principal(self) -> tuple[Tensor, Tensor]:
        return self._once("components", lambda: principal_components(self._chunks(), self.centroid))

    def projections(self, directions: Tensor) -> Tensor:
        """``(E_t - c) p`` for every token: (n, V), float32, for unit directions (n, d_model)."""
        return torch.cat([(rows - self.centroid) @ directions.T for rows in self._chunks()]).T

    def products(self, v: Tensor) -> Tensor:
        """``v · E_t`` for every token: (V,), float32.

        Args:
            v: (d_model,); or n of them, (n, d_model), for which the answer is (n, V).
        """
        products = torch.cat([rows @ torch.atleast_2d(v).T for rows in self._chunks()]).T
        return products if v.ndim > 1 else products[0]

    def cosine_distance(self, v: Tensor, products: Tensor | None = None) -> Tensor:
        """``1 - cos(v, E_t)`` for every token: (V,), float32, at least 0; NaN for a row of zeros.

        Args:
            v: (d_model,); or n of them, (n, d_model), for which the answer is (n, V).
            products: those of ``v``, where they are there already.
        """
        products = self.products(v) if products is None else products
        return (1 - products / (self.norms * v.norm(dim=-1, keepdim=True))).clamp(min=0)

    def _mean(self) -> Tensor:
        total = torch.zeros(self.d_model, dtype=torch.float64, device=self.E.device)
        for rows in self._chunks():
            total += rows.double().sum(0)
        if not total.isfinite().all():  # as soon as one number is not
            row = next(token_id for token_id, row in enumerate(self.E) if not row.isfinite().all())
            raise UserError(
                f"The model's token embeddings hold NaN or infinity (row {row} is the first), so there is no vector "
                "and no list among them. Fetch or copy the model's files again, or use another model."
            )
        return (total / self.n_tokens).float()

    def _chunks(self) -> Iterator[Tensor]:
        """The rows, some at a time, in float32. The next ones may take the place of the last ones."""
        chunks = self.E.split(self._rows_at_once)
        if self.E.dtype == torch.float32:
            yield from chunks
            return
        single = torch.empty_like(chunks[0], dtype=torch.float32)
        for rows in chunks:
            yield single[: len(rows)].copy_(rows)

    def _once(self, name: str, compute):
        with self._lock:
            if name not in self._kept:
                with torch.inference_mode():
                    self._kept[name] = compute()
            return self._kept[name]


def principal_components(chunks: Iterable[Tensor], centroid: Tensor) -> tuple[Tensor, Tensor]:
    """Unit principal components, one per row, by falling variance, of the rows in ``chunks`` about ``centroid``.

    (d, d); and the share of the variance that each explains, its eigenvalue divided by the sum of all: (d,). From the
    eigenvectors of the (d, d) scatter matrix, so that memory does not grow with the rows.
    """
    d = centroid.shape[0]
    scatter = torch.zeros(d, d, dtype=torch.float64, device=centroid.device)
    for rows in chunks:
        centred = rows - centroid
        scatter += (centred.T @ centred).double()
    values, vectors = torch.linalg.eigh(scatter)
    components, values = vectors.T.flip(0), values.flip(0).clamp(min=0)
    largest = components.gather(1, components.abs().argmax(1, keepdim=True))
    return (components * largest.sign()).float().contiguous(), (values / values.sum()).float()
