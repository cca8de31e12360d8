"""What a model consists of: layers, heads, experts and vocabulary, and how many weights and cached values they make.

Dense decoders, mixtures of experts, multi-head latent attention (MLA, DeepSeek-V2: Liu et al., 2024), and layers that
attend to a sliding window. Of hybrid models, only the layers with full attention count in the cache; of models that
see, only the decoder works, and the encoder takes memory.
"""

from dataclasses import dataclass
from typing import Final, Literal

# How weights are stored: `mxfp4` is the format of the gpt-oss checkpoints, `fp4` is NVFP4, `int4` AWQ and GPTQ.
WeightDtype = Literal["bf16", "fp16", "fp8", "fp4", "mxfp4", "int8", "int4"]

# Bytes a weight with its scales: NVFP4 has an fp8 scale for 16 weights, MXFP4 one for 32, int4 two bytes for 128.
WEIGHT_BYTES: Final[dict[WeightDtype, float]] = {
    "bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "int8": 1.0, "fp4": 0.5625, "mxfp4": 0.53125, "int4": 0.516,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class CacheSlots:
    """Layers of cache: those that hold the whole context, and those that hold a window."""

    full: int
    sliding: int


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A decoder's shape, as its config.json has it. 0 or None: the model has no such thing.

    `expert_feed_forward` is the width of one expert, `shared_feed_forward` that of all shared experts together, and
    `dense_layers` are the first ones, which have no experts. `mla_*` are the ranks and head widths of MLA; the cache
    then holds `mla_kv_rank + mla_rope` values a layer. `checkpoint` is how the published weights are stored, and
    `other_checkpoints` how they can be had as well where they are quantized. `rope_positions` is the length of the
    table of rotary embeddings where it isn't `context`.
    """

    source: str
    name: str
    family: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    feed_forward: int
    vocabulary: int
    tied_embeddings: bool
    context: int
    feed_forward_matrices: int = 3
    experts: int = 0
    experts_per_token: int = 0
    expert_feed_forward: int = 0
    shared_feed_forward: int = 0
    dense_layers: int = 0
    mla_q_rank: int = 0
    mla_kv_rank: int = 0
    mla_rope: int = 0
    mla_nope: int = 0
    mla_v: int = 0
    index_dim: int = 0
    sliding_layers: int = 0
    window: int = 0
    linear_layers: int = 0
    vision_parameters: int = 0
    rope_positions: int | None = None
    checkpoint: WeightDtype = "bf16"
    other_checkpoints: tuple[WeightDtype, ...] = ()

    @property
    def unverified(self) -> str | None:
        """Why the memory of such a model was not checked against real servers; None where it was."""
        if self.linear_layers:
            return "its layers of linear attention keep a state of their own, which is not modelled"
        if self.index_dim:
            return "its sparse attention is modelled as if it were full"
        if self.vision_parameters:
            return "its vision encoder takes memory that is only estimated"
        return None

    @property
    def attention_parameters(self) -> int:
        """Weights of one layer's attention."""
        if self.mla_kv_rank:
            return self.mla_split_parameters + self.mla_replicated_parameters
        return self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)

    @property
    def mla_split_parameters(self) -> int:
        """Of one layer of MLA, the weights that belong to heads."""
        query = (self.mla_q_rank or self.hidden) * self.heads * (self.mla_nope + self.mla_rope)
        return query + self.mla_up_parameters + self.heads * self.mla_v * self.hidden

    @property
    def mla_up_parameters(self) -> int:
        """Of one layer of MLA, the projections of the latent cache to keys and values."""
        return self.mla_kv_rank * self.heads * (self.mla_nope + self.mla_v)

    @property
    def mla_replicated_parameters(self) -> int:
        """Of one layer of MLA, the projections down to the latent space, which each GPU holds whole."""
        return self.hidden * (self.mla_q_rank + self.mla_kv_rank + self.mla_rope)

    @property
    def expert_layers(self) -> int:
        return self.layers - self.dense_layers if self.experts else 0

    @property
    def expert_parameters(self) -> int:
        """Weights of all routed experts of all layers."""
        return self.expert_layers * self.experts * 3 * self.hidden * self.expert_feed_forward

    @property
    def router_parameters(self) -> int:
        return self.expert_layers * self.experts * self.hidden

    @property
    def feed_forward_parameters(self) -> int:
        """Weights of all layers' feed-forward matrices that every token passes: dense ones and shared experts."""
        dense = (self.layers - self.expert_layers) * self.feed_forward_matrices * self.hidden * self.feed_forward
        return dense + self.expert_layers * 3 * self.hidden * self.shared_feed_forward

    @property
    def common_parameters(self) -> int:
        """Weights of all layers that every token passes."""
        return self.layers * self.attention_parameters + self.feed_forward_parameters + self.router_parameters

    @property
    def layer_parameters(self) -> int:
        """Weights of all layers."""
        return self.common_parameters + self.expert_parameters

    @property
    def active_layer_parameters(self) -> int:
        """Weights of all layers that one token passes: of the experts, those that it is routed to."""
        routed = self.expert_parameters * self.experts_per_token // self.experts if self.experts else 0
        return self.common_parameters + routed

    @property
    def head_parameters(self) -> int:
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """All weights, embeddings included (norms and biases, under 0.1 %, left out)."""
        return self.layer_parameters + self.head_parameters * (1 if self.tied_embeddings else 2)

    @property
    def attention_width(self) -> int:
        """Query-key and score-value widths of all heads together, halved: `head_dim` a head but for MLA."""
        if self.mla_kv_rank:
            return self.heads * (self.mla_nope + self.mla_rope + self.mla_v) // 2
        return self.heads * self.head_dim

    @property
    def cache_slots(self) -> CacheSlots:
        """Layers of cache that a token takes. vLLM groups full and sliding layers in equal groups and pads the last."""
        full = self.layers - self.linear_layers - self.sliding_layers
        group = min(full, self.sliding_layers) or 1
        return CacheSlots(-(-full // group) * group, -(-self.sliding_layers // group) * group)

    def kv_bytes_per_token(self, bytes_per_value: int, gpus: int = 1) -> int:
        """Cache of one token on all `gpus` together: MLA's is on each of them, and a head on at least one."""
        if self.mla_kv_rank:
            index = self.index_dim + 4 if self.index_dim else 0
            return gpus * self.layers * ((self.mla_kv_rank + self.mla_rope) * bytes_per_value + index)
        layers = self.cache_slots.full + self.cache_slots.sliding
        return 2 * layers * max(self.kv_heads, gpus) * self.head_dim * bytes_per_value

    def experts_touched(self, tokens: int) -> float:
        """The share of experts that at least one of `tokens` is routed to, if they choose independently and evenly."""
        return 1.0 - (1.0 - self.experts_per_token / self.experts) ** tokens if self.experts else 0.0
