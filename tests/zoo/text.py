"""Language models: causal, masked, encoder-decoder, and the classifiers on top of them."""

from functools import partial

import torch
import transformers

from . import batches
from .family import Family, tiny

MLA = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8}
START = {"decoder_start_token_id": 0}
SHORT_ATTENTION = {"attention_window": 4, "max_encoder_position_embeddings": 64, "max_decoder_position_embeddings": 64}

# Model class: what its config needs beside tiny sizes.
CAUSAL = {
    "GPT2LMHeadModel": {},
    "LlamaForCausalLM": {},
    "MistralForCausalLM": {"sliding_window": 4},
    "MinistralForCausalLM": {},
    "Qwen2ForCausalLM": {},
    "Qwen3ForCausalLM": {},
    "GemmaForCausalLM": {},
    "Gemma2ForCausalLM": {"query_pre_attn_scalar": 8, "sliding_window": 4},
    "Gemma3ForCausalLM": {"sliding_window": 4},
    "Phi3ForCausalLM": {},
    "PhiForCausalLM": {"num_key_value_heads": 2},
    "OPTForCausalLM": {"word_embed_proj_dim": 16},
    "BloomForCausalLM": {},
    "FalconForCausalLM": {},
    "GPTNeoXForCausalLM": {},
    "GPTNeoForCausalLM": {"attention_types": [[["global", "local"], 1]], "window_size": 4},
    "GPTJForCausalLM": {"rotary_dim": 4},
    "CodeGenForCausalLM": {"rotary_dim": 4, "n_head": 4},
    "GPTBigCodeForCausalLM": {},
    "StableLmForCausalLM": {},
    "OlmoForCausalLM": {},
    "Olmo2ForCausalLM": {},
    "Olmo3ForCausalLM": {},
    "CohereForCausalLM": {},
    "Cohere2ForCausalLM": {},
    "GraniteForCausalLM": {},
    "SmolLM3ForCausalLM": {},
    "Starcoder2ForCausalLM": {},
    "GlmForCausalLM": {},
    "Glm4ForCausalLM": {},
    "NemotronForCausalLM": {},
    "PersimmonForCausalLM": {},
    "MptForCausalLM": {},
    "BioGptForCausalLM": {},
    "XGLMForCausalLM": {"attention_heads": 2},
    "OpenAIGPTLMHeadModel": {},
    "CTRLLMHeadModel": {},
    "HeliumForCausalLM": {},
    "Exaone4ForCausalLM": {},
    "Ernie4_5ForCausalLM": {},
    "ArceeForCausalLM": {},
    "DiffLlamaForCausalLM": {"num_key_value_heads": 2},
    "SeedOssForCausalLM": {},
    "MiniCPM3ForCausalLM": MLA | {"num_key_value_heads": 2, "head_dim": 16},
    "ModernBertDecoderForCausalLM": {"local_attention": 4},
    "BertLMHeadModel": {"is_decoder": True},
    "RobertaForCausalLM": {"is_decoder": True},
    # decoders whose labels are not shifted
    "BartForCausalLM": {},
    "MBartForCausalLM": {},
    "MarianForCausalLM": {},
    "PegasusForCausalLM": {},
    "BlenderbotForCausalLM": {},
    "ProphetNetForCausalLM": {"num_encoder_layers": 2, "num_decoder_attention_heads": 2},
    "TrOCRForCausalLM": {},
    "XLNetLMHeadModel": {"d_inner": 32},
    "XLMWithLMHeadModel": {"emb_dim": 16, "n_heads": 2, "n_layers": 2},
}
MASKED = {
    "BertForMaskedLM": {},
    "RobertaForMaskedLM": {},
    "XLMRobertaForMaskedLM": {},
    "XLMRobertaXLForMaskedLM": {},
    "AlbertForMaskedLM": {},
    "DistilBertForMaskedLM": {"dim": 16, "n_heads": 2, "n_layers": 2, "hidden_dim": 32},
    "DebertaForMaskedLM": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "max_relative_positions": 8},
    "DebertaV2ForMaskedLM": {
        "relative_attention": True,
        "pos_att_type": ["c2p", "p2c"],
        "position_buckets": 4,
        "norm_rel_ebd": "layer_norm",
        "conv_kernel_size": 3,
    },
    "MPNetForMaskedLM": {},
    "ElectraForMaskedLM": {},
    "ModernBertForMaskedLM": {"local_attention": 4, "global_attn_every_n_layers": 2},
    "LongformerForMaskedLM": SHORT_ATTENTION,
    "MobileBertForMaskedLM": {"true_hidden_size": 16, "intra_bottleneck_size": 16, "num_feedforward_networks": 2},
    "SqueezeBertForMaskedLM": {"q_groups": 2, "k_groups": 2, "v_groups": 2, "intermediate_groups": 2},
    "CamembertForMaskedLM": {},
    "FNetForMaskedLM": {},
    "NystromformerForMaskedLM": {"num_landmarks": 8, "segment_means_seq_len": 8},
    "RoFormerForMaskedLM": {},
    "RemBertForMaskedLM": {"input_embedding_size": 16, "output_embedding_size": 16},
    "ConvBertForMaskedLM": {"head_ratio": 1, "conv_kernel_size": 3},
    "BigBirdForMaskedLM": {"attention_type": "original_full"},
    "FunnelForMaskedLM": {"block_sizes": [1, 1], "n_head": 2, "d_head": 8, "d_inner": 32, "num_decoder_layers": 1},
    "EsmForMaskedLM": {"position_embedding_type": "rotary", "mask_token_id": 3},
    "ErnieForMaskedLM": {},
    "IBertForMaskedLM": {},
    "MegatronBertForMaskedLM": {},
    "RoCBertForMaskedLM": {
        "pronunciation_embed_dim": 8,
        "pronunciation_vocab_size": 64,
        "shape_embed_dim": 8,
        "shape_vocab_size": 64,
    },
    "EuroBertForMaskedLM": {},
    "NomicBertForMaskedLM": {},
    "Data2VecTextForMaskedLM": {},
    "RobertaPreLayerNormForMaskedLM": {},
    "LukeForMaskedLM": {"entity_vocab_size": 8, "entity_emb_size": 8},
    "MraForMaskedLM": {"num_blocks": 1, "block_per_row": 1},
}
SEQ2SEQ = {
    "T5ForConditionalGeneration": START,
    "MT5ForConditionalGeneration": {},
    "UMT5ForConditionalGeneration": {},
    "LongT5ForConditionalGeneration": START | {"local_radius": 3},
    "BartForConditionalGeneration": {},
    "MBartForConditionalGeneration": {},
    "MarianMTModel": {},
    "PegasusForConditionalGeneration": {},
    "PegasusXForConditionalGeneration": {"block_size": 4, "num_global_tokens": 4},
    "BigBirdPegasusForConditionalGeneration": {"attention_type": "original_full"},
    "LEDForConditionalGeneration": SHORT_ATTENTION,
    "ProphetNetForConditionalGeneration": {
        "num_encoder_layers": 2,
        "num_encoder_attention_heads": 2,
        "num_decoder_attention_heads": 2,
    },
    "M2M100ForConditionalGeneration": {},
    "BlenderbotForConditionalGeneration": {},
    "BlenderbotSmallForConditionalGeneration": {},
    "PLBartForConditionalGeneration": {},
    "MvpForConditionalGeneration": {},
    "SwitchTransformersForConditionalGeneration": START
    | {
        "num_sparse_encoder_layers": 1,
        "num_sparse_decoder_layers": 1,
        "expert_capacity": 64,
    },
    "NllbMoeForConditionalGeneration": {"encoder_sparse_step": 2, "decoder_sparse_step": 2, "expert_capacity": 64},
}
SEQUENCE = {
    "BertForSequenceClassification": {},
    "RobertaForSequenceClassification": {},
    "DebertaV2ForSequenceClassification": MASKED["DebertaV2ForMaskedLM"],
    "ModernBertForSequenceClassification": MASKED["ModernBertForMaskedLM"],
    "ElectraForSequenceClassification": {},
    "XLNetForSequenceClassification": CAUSAL["XLNetLMHeadModel"],
    "MPNetForSequenceClassification": {},
    "LongformerForSequenceClassification": SHORT_ATTENTION,
    "GPT2ForSequenceClassification": {},
    "LlamaForSequenceClassification": {},
    "Qwen2ForSequenceClassification": {},
    "Gemma2ForSequenceClassification": CAUSAL["Gemma2ForCausalLM"],
    "FalconForSequenceClassification": {},
    "OPTForSequenceClassification": CAUSAL["OPTForCausalLM"],
    "FNetForSequenceClassification": {},
    "CanineForSequenceClassification": {
        "local_transformer_stride": 4,
        "downsampling_rate": 2,
        "num_hash_buckets": 16,
    },
    "PerceiverForSequenceClassification": {
        "num_latents": 4,
        "d_latents": 16,
        "num_self_attends_per_block": 1,
        "num_self_attention_heads": 2,
        "num_cross_attention_heads": 2,
    },
}
TOKEN = {
    "BertForTokenClassification": {},
    "DebertaV2ForTokenClassification": MASKED["DebertaV2ForMaskedLM"],
    "ModernBertForTokenClassification": MASKED["ModernBertForMaskedLM"],
    "XLMRobertaForTokenClassification": {},
    "GPT2ForTokenClassification": {},
    "LlamaForTokenClassification": {},
    "BigBirdForTokenClassification": {"attention_type": "original_full"},
    "T5ForTokenClassification": {},
}
QUESTION = {
    "BertForQuestionAnswering": {},
    "RobertaForQuestionAnswering": {},
    "DistilBertForQuestionAnswering": MASKED["DistilBertForMaskedLM"],
    "XLNetForQuestionAnsweringSimple": CAUSAL["XLNetLMHeadModel"],
    "BartForQuestionAnswering": {},
    "GPTJForQuestionAnswering": {"rotary_dim": 4},
    "LlamaForQuestionAnswering": {},
    "SplinterForQuestionAnswering": {"question_token_id": 4},
}
CHOICE = {
    "BertForMultipleChoice": {},
    "RobertaForMultipleChoice": {},
    "XLNetForMultipleChoice": CAUSAL["XLNetLMHeadModel"],
    "DebertaV2ForMultipleChoice": MASKED["DebertaV2ForMaskedLM"],
}
HEADS = {
    "causal": (CAUSAL, batches.causal, {}),
    "masked": (MASKED, batches.masked, {}),
    "seq2seq": (SEQ2SEQ, batches.seq2seq, {}),
    "sequence": (SEQUENCE, batches.sequence, {"num_labels": batches.CLASSES}),
    "token": (TOKEN, batches.token, {"num_labels": batches.CLASSES}),
    "question": (QUESTION, batches.question, {}),
    "choice": (CHOICE, batches.choice, {}),
}


REFORMER = {
    "is_decoder": True,
    "axial_pos_shape": [4, 2],
    "axial_pos_embds_dim": [8, 8],
    "attn_layers": ["local", "local"],
    "attention_head_size": 8,
    "local_attn_chunk_length": 4,
    "feed_forward_size": 32,
}
FSMT = {
    "langs": ["en", "de"],
    "src_vocab_size": 64,
    "tgt_vocab_size": 64,
    "decoder": {"bos_token_id": 1, "vocab_size": 64},
}


def of_table(head, table, batch, common):
    """Families of a table of {class name: changes to its config}."""
    return [one(name, head, batch, **{**common, **changes}) for name, changes in table.items()]


def one(name, head, batch, variant="", untrainable="", in_training=False, **changes):
    """A family of tokens; `changes` are what its config needs beside tiny sizes."""
    config = partial(tiny, getattr(transformers, name).config_class, **changes)
    return Family(name, head, config, batch, variant, is_tokens=True, untrainable=untrainable, in_training=in_training)


def ended(side="right"):
    """A class for each text, whose last token is the end."""
    batch = batches.sequence(side)
    ids, mask = batch["input_ids"], batch["attention_mask"]
    last = torch.where(mask == 1, torch.arange(mask.shape[1]), -1).argmax(1)
    return {**batch, "input_ids": ids.scatter(1, last.unsqueeze(1), 2)}


def looking_at_the_first(batch):
    """With the first place of each text looked at by all the others (Longformer's global attention)."""

    def made(side="right"):
        found = batch(side)
        mask = found["attention_mask"]
        return {**found, "global_attention_mask": ((mask.cumsum(-1) == 1) & (mask == 1)).long()}

    return made


def with_decoder_inputs(side="right"):
    batch = batches.seq2seq(side)
    return {**batch, "decoder_input_ids": batch["labels"].clamp(min=0).roll(1, 1)}


def replaced(side="right"):
    """Which tokens are not the original ones; padding counts in no loss."""
    batch = batches.tokens(side)
    return {**batch, "labels": torch.randint(0, 2, batch["input_ids"].shape)}


def sentences(label):
    """Masked words, and whether the second sentence follows the first."""
    return lambda side="right": {**batches.masked(side), label: torch.tensor([0, 1, 1, 0])}


def families():
    found = [each for head, (table, batch, common) in HEADS.items() for each in of_table(head, table, batch, common)]
    classes = {"num_labels": batches.CLASSES}
    bert, long = "BertForSequenceClassification", dict(SHORT_ATTENTION)
    only_in_training = "the forward pass asserts training mode (random chunks)"
    return [
        *found,
        one(
            bert, "sequence", batches.multi_label, "multi_label", problem_type="multi_label_classification", **classes
        ),
        one(bert, "sequence", batches.regression, "regression", num_labels=1),
        one("LlamaForSequenceClassification", "sequence", batches.regression, "regression", num_labels=1),
        one("BartForSequenceClassification", "sequence", ended, **classes),
        one("T5ForSequenceClassification", "sequence", ended, **START, **classes),
        one("LongformerForQuestionAnswering", "question", looking_at_the_first(batches.question), **long),
        one("LongformerForMultipleChoice", "choice", looking_at_the_first(batches.choice), **long),
        one("LEDForConditionalGeneration", "seq2seq", looking_at_the_first(batches.seq2seq), "global", **long),
        one("FSMTForConditionalGeneration", "seq2seq", with_decoder_inputs, **FSMT),
        one("ReformerModelWithLMHead", "causal", batches.causal, "", only_in_training, **REFORMER),
        one("ElectraForPreTraining", "pretraining", replaced),
        one("FunnelForPreTraining", "pretraining", replaced, **MASKED["FunnelForMaskedLM"]),
        one("BertForPreTraining", "pretraining", sentences("next_sentence_label")),
        one("AlbertForPreTraining", "pretraining", sentences("sentence_order_label")),
        one("MegatronBertForPreTraining", "pretraining", sentences("next_sentence_label")),
        one(
            "MobileBertForPreTraining",
            "pretraining",
            sentences("next_sentence_label"),
            **MASKED["MobileBertForMaskedLM"],
        ),
        one("BigBirdForPreTraining", "pretraining", sentences("next_sentence_label"), attention_type="original_full"),
        one(
            "BertForNextSentencePrediction",
            "sequence",
            lambda side="right": {**batches.tokens(side), "labels": torch.tensor([0, 1, 1, 0])},
        ),
    ]
