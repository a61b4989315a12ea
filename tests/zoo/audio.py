"""Models of sound: classification, CTC, speech to text, pretraining."""

from functools import partial

import torch
import transformers

from . import batches
from .batches import CLASSES, LENGTHS, ROWS
from .family import VOCABULARY, Family, tiny

WAVES = {
    "conv_dim": [8, 8],
    "conv_kernel": [10, 3],
    "conv_stride": [5, 4],
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "classifier_proj_size": 8,
    "tdnn_dim": [8, 8],
    "tdnn_kernel": [3, 3],
    "tdnn_dilation": [1, 1],
    "xvector_output_dim": 8,
    "mask_time_prob": 0.0,
    "num_feat_extract_layers": 2,
    "num_codevectors_per_group": 4,
    "codevector_dim": 8,
    "proj_codevector_dim": 8,
}
KINDS = {
    "Wav2Vec2": WAVES,
    "Hubert": WAVES,
    "WavLM": WAVES | {"num_buckets": 8, "max_bucket_distance": 16},
    "Data2VecAudio": WAVES | {"conv_pos_kernel_size": 3, "num_conv_pos_embeddings": 1},
    "UniSpeech": WAVES,
    "UniSpeechSat": WAVES,
    "SEW": WAVES,
    "SEWD": WAVES | {"feature_layer_norm_eps": 1e-5, "position_buckets": 4, "max_position_embeddings": 16},
    "Wav2Vec2Conformer": WAVES | {"conv_depthwise_kernel_size": 3},
}
FRAMES = 40  # of spectrograms
MELS = 8


def _config(name, **changes):
    config = getattr(transformers, name).config_class
    known = set(config.__dataclass_fields__)
    return tiny(config, **{key: value for key, value in changes.items() if key in known or key == "num_labels"})


def classified(side="right"):
    return {**batches.waves(), "labels": batches.classes()}


def transcribed(side="right"):
    labels = torch.randint(3, VOCABULARY, (ROWS, 3)).masked_fill(
        torch.arange(3) >= torch.tensor([[3], [2], [2], [1]]), -100
    )
    return {**batches.waves(), "labels": labels}


def frames(side="right"):
    """A one-hot class for each frame."""
    return {**batches.waves(), "labels": torch.nn.functional.one_hot(torch.randint(0, CLASSES, (ROWS, 20)), CLASSES)}


def spectrogram(axis, mask="attention_mask"):
    filled = torch.tensor(LENGTHS).unsqueeze(1) * FRAMES // 8
    mask_values = (torch.arange(FRAMES) < filled).long()
    sound = torch.randn(ROWS, FRAMES, MELS) * mask_values.unsqueeze(-1)
    return {"input_features": sound if axis == 1 else sound.transpose(1, 2).contiguous(), mask: mask_values}


def whispered(side="right"):
    batch = spectrogram(2)
    return {**batch, "labels": batches.seq2seq()["labels"]}


def whisper_class(side="right"):
    return {"input_features": spectrogram(2)["input_features"], "labels": batches.classes()}


def listened(side="right"):
    return {**spectrogram(1), "labels": batches.seq2seq()["labels"]}


def frame_classes(side="right"):
    return {**spectrogram(1), "labels": batches.classes()}


def frame_letters(side="right"):
    return {**spectrogram(1), "labels": transcribed()["labels"]}


def patches_of_sound(side="right"):
    return {"input_values": torch.randn(ROWS, FRAMES, MELS), "labels": batches.classes()}


def moonshine(side="right"):
    return {**batches.waves(1600), "labels": batches.seq2seq()["labels"]}


def masked_time(side="right"):
    """Wav2Vec2's pretraining: which frames are masked, and which frames each is to be told from."""
    torch.manual_seed(5)
    mask = torch.zeros(ROWS, 20, dtype=torch.bool)
    for row, count in enumerate((6, 4, 5, 3)):
        mask[row, torch.randperm(6)[:count]] = True
    negatives = torch.randint(0, 6, (ROWS, 20, 3)) + 20 * torch.arange(ROWS).reshape(-1, 1, 1)
    return {**batches.waves(), "mask_time_indices": mask, "sampled_negative_indices": negatives}


def cut_masked_time(batch, row):
    one = {key: value[row : row + 1] for key, value in batch.items()}
    return {**one, "sampled_negative_indices": one["sampled_negative_indices"] - 20 * row}


def families():
    found = []
    for kind, changes in KINDS.items():
        for ending, head, batch, labels in (
            ("ForSequenceClassification", "audio", classified, CLASSES),
            ("ForCTC", "ctc", transcribed, None),
            ("ForAudioFrameClassification", "audio", frames, CLASSES),
            ("ForXVector", "audio", classified, 8),
        ):
            name = kind + ending
            if not hasattr(transformers, name) or (ending[3] in "AX" and kind not in ("Wav2Vec2", "WavLM")):
                continue
            more = {} if labels is None else {"num_labels": labels}
            found.append(Family(name, head, partial(_config, name, **changes, **more), batch))
    whisper = {
        "num_mel_bins": MELS,
        "max_source_positions": FRAMES // 2,
        "max_target_positions": 16,
        "classifier_proj_size": 8,
    }
    bert = {
        "feature_projection_input_dim": MELS,
        "position_embeddings_type": "relative_key",
        "left_max_position_embeddings": 4,
        "right_max_position_embeddings": 2,
        "conv_depthwise_kernel_size": 3,
        "classifier_proj_size": 8,
    }
    listen = {
        "input_feat_per_channel": MELS,
        "conv_channels": 8,
        "max_source_positions": FRAMES,
        "max_target_positions": 16,
    }
    ast = {"patch_size": 4, "frequency_stride": 4, "time_stride": 4, "max_length": FRAMES, "num_mel_bins": MELS}
    shine = {
        "encoder_num_hidden_layers": 1,
        "decoder_num_hidden_layers": 1,
        "encoder_num_attention_heads": 2,
        "decoder_num_attention_heads": 2,
    }
    speech = dict(WAVES, max_text_positions=16, num_mel_bins=MELS)

    def make(name, **changes):
        return partial(_config, name, **changes)

    return [
        *found,
        Family(
            "WhisperForConditionalGeneration", "speech", make("WhisperForConditionalGeneration", **whisper), whispered
        ),
        Family(
            "WhisperForAudioClassification",
            "audio",
            make("WhisperForAudioClassification", **whisper, num_labels=CLASSES),
            whisper_class,
        ),
        Family(
            "Speech2TextForConditionalGeneration",
            "speech",
            make("Speech2TextForConditionalGeneration", **listen),
            listened,
        ),
        Family(
            "MoonshineForConditionalGeneration",
            "speech",
            make("MoonshineForConditionalGeneration", **shine),
            moonshine,
        ),
        Family("SpeechT5ForSpeechToText", "speech", make("SpeechT5ForSpeechToText", **speech), transcribed),
        Family(
            "ASTForAudioClassification",
            "audio",
            make("ASTForAudioClassification", **ast, num_labels=CLASSES),
            patches_of_sound,
        ),
        Family(
            "Wav2Vec2BertForSequenceClassification",
            "audio",
            make("Wav2Vec2BertForSequenceClassification", **bert, num_labels=CLASSES),
            frame_classes,
        ),
        Family("Wav2Vec2BertForCTC", "ctc", make("Wav2Vec2BertForCTC", **bert), frame_letters),
        Family(
            "Wav2Vec2ForPreTraining",
            "pretraining",
            make("Wav2Vec2ForPreTraining", **WAVES | {"mask_time_prob": 0.5}),
            masked_time,
            cut=cut_masked_time,
        ),
    ]
