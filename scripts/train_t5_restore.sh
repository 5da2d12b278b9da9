#!/bin/sh
# Train the model `t5-restore`, from the repository's root, on a machine with torch and numpy and nothing else.
#
#     sh scripts/train_t5_restore.sh DATA OUT [DEVICE] [MINUTES] [LAYERS]
#
# DATA is `work/pairs.npz` of a run on the lines of examples/restoration, or that file compressed by xz; what is made is
# copied to OUT, the weights in parts of 12 MB. Put them together, and scripts/ship_t5.py makes of them what comes with offramp.
set -eu
data=$1 out=$2 device=${3:-cuda} minutes=${4:-7.5} layers=${5:-layers=6,decoder_layers=16}
export PYTHONPATH="src${PYTHONPATH:+:$PYTHONPATH}"
mkdir -p "$out"

case $data in
    *.xz) python3 -c "import lzma, shutil, sys; shutil.copyfileobj(lzma.open(sys.argv[1]), open('pairs.npz', 'wb'), 1 << 24)" "$data" ;;
    *) cp "$data" pairs.npz ;;
esac

python3 -m offramp tune --recipe calm --shape "$layers,width=256,heads=4,head_dim=64,inner=1024,vocabulary=4096" \
    --data pairs.npz --out t5-restore --device "$device" --minutes "$minutes" --lr 1e-3 --batch-tokens "${BATCH:-12288}" --epochs 10 \
    --dropout 0.1 --patience 20 --evaluations 10 --classifier-steps 300 --json > t5-restore.json
for file in config.json generation_config.json tokenizer.json tokenizer_config.json exits.json exits.safetensors MODEL_CARD.md run/history.json; do
    cp "t5-restore/$file" "$out/"
done
cp t5-restore.json "$out/"
split -b 12000000 t5-restore/model.safetensors "$out/model.safetensors."
(cd t5-restore && sha256sum model.safetensors) > "$out/sha256"
ls -l "$out"
