"""Groups by SwAV's prototypes, where a collection stands in their space."""

from pathlib import Path

import numpy as np
from safetensors import safe_open

from indexer.collection import Collection
from indexer.generations import open_generation
from indexer.overview import Overview
from indexer.survey import survey_collection
from indexer.survey_folder import GROUPS, read_part
from seer_model.zoo import find_model
from tests.indexer.making import build, draw


def test_groups_of_a_projection_are_those_of_the_models_prototypes(tmp_path: Path):
    """Whoever shares the nearest prototype shares a small group; and large ones are made of whole small ones."""
    for seed in range(60):
        draw(tmp_path / "pictures" / f"{seed}.png", seed)
    build(tmp_path / "place", tmp_path / "pictures", model="seer-mini#projection")
    survey_collection(tmp_path / "place")
    generation = open_generation(tmp_path / "place")
    part = read_part(generation, GROUPS)
    with safe_open(find_model("seer-mini").path, "np") as file:
        prototypes = file.get_tensor("heads.prototypes.0.weight").astype(np.float32)
    prototypes /= np.linalg.norm(prototypes, axis=1, keepdims=True)
    with Collection(tmp_path / "place") as collection:
        rows = collection.read_embeddings()[1].astype(np.float32)
    nearest = (rows @ prototypes.T).argmax(axis=1)
    labels = part.arrays["labels"]
    assert ((nearest[:, None] == nearest) == (labels[:, None] == labels)).all() and 1 < len(set(labels.tolist())) < 60
    assert part.told["by"] == "prototypes" and len(part.arrays["above"]) == len(set(labels.tolist()))
    with Collection(tmp_path / "place") as collection:
        assert sum(group.size for group in Overview(collection).list_groups()) == 60


def test_another_readout_has_groups_by_k_means(tmp_path: Path):
    for seed in range(12):
        draw(tmp_path / "pictures" / f"{seed}.png", seed)
    build(tmp_path / "place", tmp_path / "pictures")
    survey_collection(tmp_path / "place")
    assert read_part(open_generation(tmp_path / "place"), GROUPS).told["by"] == "k-means"
