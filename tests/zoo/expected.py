"""What families come to; those that are not named are right, a whole batch at once, with "auto" and with "all"."""

RIGHT, ONE, NO = "right", "one at a time", "refused"

# Family: what "auto" and what "all" come to.
EXPECTED: dict[str, tuple[str, str]] = {
    # a layer that does not run again for one row
    "ProphetNetForCausalLM": (RIGHT, ONE),
    "XLNetLMHeadModel": (RIGHT, ONE),
    "ProphetNetForConditionalGeneration": (RIGHT, ONE),
    "XLNetForSequenceClassification": (RIGHT, ONE),
    "XLNetForQuestionAnsweringSimple": (RIGHT, ONE),
    "XLNetForMultipleChoice": (RIGHT, ONE),
    "JetMoeForCausalLM": (ONE, ONE),
    "RecurrentGemmaForCausalLM": (RIGHT, ONE),
    "GraniteMoeHybridForCausalLM": (RIGHT, ONE),
    # a part of the loss is of the whole batch
    "TimesFmModelForPrediction": (ONE, ONE),
    # a table that is one for all rows, or a layer without an axis of rows
    "BioGptForCausalLM": (RIGHT, ONE),
    "BartForCausalLM": (RIGHT, ONE),
    "MBartForCausalLM": (RIGHT, ONE),
    "BlenderbotForCausalLM": (RIGHT, ONE),
    "DebertaForMaskedLM": (ONE, ONE),
    "DebertaV2ForMaskedLM": (ONE, ONE),
    "MPNetForMaskedLM": (RIGHT, ONE),
    "T5ForConditionalGeneration": (RIGHT, ONE),
    "MT5ForConditionalGeneration": (RIGHT, ONE),
    "UMT5ForConditionalGeneration": (RIGHT, ONE),
    "BartForConditionalGeneration": (RIGHT, ONE),
    "MBartForConditionalGeneration": (RIGHT, ONE),
    "BigBirdPegasusForConditionalGeneration": (RIGHT, ONE),
    "LEDForConditionalGeneration": (RIGHT, ONE),
    "BlenderbotForConditionalGeneration": (RIGHT, ONE),
    "BlenderbotSmallForConditionalGeneration": (RIGHT, ONE),
    "PLBartForConditionalGeneration": (RIGHT, ONE),
    "SwitchTransformersForConditionalGeneration": (ONE, ONE),
    "NllbMoeForConditionalGeneration": (ONE, ONE),
    "DebertaV2ForSequenceClassification": (ONE, ONE),
    "MPNetForSequenceClassification": (RIGHT, ONE),
    "PerceiverForSequenceClassification": (RIGHT, ONE),
    "DebertaV2ForTokenClassification": (ONE, ONE),
    "T5ForTokenClassification": (RIGHT, ONE),
    "BartForQuestionAnswering": (RIGHT, ONE),
    "DebertaV2ForMultipleChoice": (ONE, ONE),
    "BartForSequenceClassification": (RIGHT, ONE),
    "T5ForSequenceClassification": (RIGHT, ONE),
    "LEDForConditionalGeneration-global": (RIGHT, ONE),
    "DbrxForCausalLM": (RIGHT, ONE),
    "DbrxForCausalLM-router": (RIGHT, ONE),
    "SwinForImageClassification": (RIGHT, ONE),
    "Swinv2ForImageClassification": (ONE, ONE),
    "BeitForImageClassification": (RIGHT, ONE),
    "Data2VecVisionForImageClassification": (RIGHT, ONE),
    "UperNetForSemanticSegmentation": (RIGHT, ONE),
    "Wav2Vec2ForXVector": (RIGHT, ONE),
    "WavLMForSequenceClassification": (RIGHT, ONE),
    "WavLMForCTC": (RIGHT, ONE),
    "WavLMForXVector": (RIGHT, ONE),
    "SEWDForSequenceClassification": (ONE, ONE),
    "SEWDForCTC": (ONE, ONE),
    "Wav2Vec2ConformerForSequenceClassification": (ONE, ONE),
    "Wav2Vec2ConformerForCTC": (ONE, ONE),
    "SpeechT5ForSpeechToText": (RIGHT, ONE),
    "Wav2Vec2BertForSequenceClassification": (RIGHT, ONE),
    "Wav2Vec2BertForCTC": (RIGHT, ONE),
    "Florence2ForConditionalGeneration": (RIGHT, ONE),
    # images of a row among those of others, in unequal numbers
    "Qwen2VLForConditionalGeneration": (ONE, ONE),
    "Qwen2_5_VLForConditionalGeneration": (ONE, ONE),
    "Qwen3VLForConditionalGeneration": (ONE, ONE),
    # the loss is given rows in another shape
    "LongT5ForConditionalGeneration": (RIGHT, ONE),
    "MaskFormerForInstanceSegmentation": (ONE, ONE),
    "YolosForObjectDetection": (ONE, ONE),
    "DetrForObjectDetection": (ONE, ONE),
    "TableTransformerForObjectDetection": (ONE, ONE),
    "DetrForSegmentation": (ONE, ONE),
    "Wav2Vec2ForAudioFrameClassification": (ONE, ONE),
    "WavLMForAudioFrameClassification": (ONE, ONE),
    # the loss is made of other operations than torch's loss functions
    "ViTMAEForPreTraining": (ONE, ONE),
    "ViTForMaskedImageModeling": (ONE, ONE),
    "SwinForMaskedImageModeling": (ONE, ONE),
    "DeiTForMaskedImageModeling": (ONE, ONE),
    "ConditionalDetrForObjectDetection": (ONE, ONE),
    "DeformableDetrForObjectDetection": (ONE, ONE),
    "DabDetrForObjectDetection": (ONE, ONE),
    "RTDetrForObjectDetection": (ONE, ONE),
    "GLPNForDepthEstimation": (ONE, ONE),
    "PatchTSTForPrediction-nll": (ONE, ONE),
    "PatchTSMixerForPrediction-nll": (ONE, ONE),
    "TimeSeriesTransformerForPrediction": (ONE, ONE),
    "InformerForPrediction": (ONE, ONE),
    "AutoformerForPrediction": (ONE, ONE),
    "BlipForQuestionAnswering": (ONE, ONE),
    # the model draws at random
    "Mask2FormerForUniversalSegmentation": (ONE, ONE),
    "EomtForUniversalSegmentation": (ONE, ONE),
    "PatchTSTForPretraining": (ONE, ONE),
    "PatchTSMixerForPretraining": (ONE, ONE),
    # other
    "LevitForImageClassification": (ONE, ONE),
    "CvtForImageClassification": (ONE, ONE),
    # refused: autograd of one row fails in eval mode, or rows cannot be cut out of the batch
    "ReformerModelWithLMHead": (NO, NO),
    "Wav2Vec2ForPreTraining": (NO, NO),
    # refused: other
    "BeitForMaskedImageModeling": (NO, NO),
    # refused: the loss compares rows
    "CLIPModel": (NO, NO),
}
# Those of whose weights "auto" has less than half: quantised layers, embeddings and bare parameters are the others.
UNDER_HALF = {
    "XLNetLMHeadModel",
    "SqueezeBertForMaskedLM",
    "IBertForMaskedLM",
    "XLNetForSequenceClassification",
    "XLNetForQuestionAnsweringSimple",
    "XLNetForMultipleChoice",
    "DbrxForCausalLM",
    "DbrxForCausalLM-router",
    "LayoutLMForTokenClassification",
    "LayoutLMForSequenceClassification",
}


def expected(name: str, target: str) -> str:
    """The word of a family's verdict."""
    auto, everything = EXPECTED.get(name, (RIGHT, RIGHT))
    return auto if target == "auto" else everything
