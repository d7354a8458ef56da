"""Clusters: every token is in exactly one, and counts follow from the parameters."""

from hypothesis import given
from hypothesis import strategies as st

from parties.decoding.clusters import Clustering
from parties.policies import MPCache

sizes = st.sampled_from([(16, 32), (4, 8), (1, 2), (16, 16), (4, 16)])


@given(st.integers(1, 3000), sizes)
def test_always_and_candidates_cover_every_token_once(tokens: int, size: tuple[int, int]) -> None:
    clusters = Clustering(tokens, *size)
    covered = [token for start, stop in clusters.always for token in range(start, stop)]
    for cluster in clusters.fine_candidates:
        covered += range(cluster * clusters.fine, (cluster + 1) * clusters.fine)
    assert sorted(covered) == list(range(tokens))


@given(st.integers(1, 3000), sizes)
def test_every_coarse_candidate_has_all_its_children(tokens: int, size: tuple[int, int]) -> None:
    clusters = Clustering(tokens, *size)
    parents = [parent for parent in clusters.parents if parent is not None]
    ratio = clusters.coarse // clusters.fine
    assert sorted(parents) == sorted(i for i in range(len(clusters.coarse_candidates)) for _ in range(ratio))


@given(st.integers(1, 3000), st.floats(0, 1), st.floats(0, 1), sizes)
def test_no_more_are_selected_than_compete(tokens: int, coarse: float, fine: float, size: tuple[int, int]) -> None:
    clusters = Clustering(tokens, *size)
    k_coarse, k_fine = clusters.top_k(coarse, fine)
    assert 0 <= k_coarse <= len(clusters.coarse_candidates)
    assert 0 <= k_fine <= len(clusters.fine_candidates)
    assert k_fine <= int(clusters.n_fine * fine)


def test_the_papers_numbers() -> None:
    clusters = Clustering(1024, fine=16, coarse=32)
    assert clusters.top_k(0.5, 0.2) == (16, 12)
    assert clusters.always == ((0, 16), (1008, 1024))
    assert MPCache(select=0.2).attended(1024) == 14 * 16


def test_short_caches_are_attended_whole() -> None:
    assert Clustering(5, 16, 32).always == ((0, 5),)
    assert Clustering(20, 16, 32).always == ((0, 16), (16, 20))
    assert MPCache().attended(20) == 20
