"""Recipe of the reference speech model: synthesis, training, export to CTranslate2 and examination, from nothing."""

NAME = "outpost-reference-speech"
