#!/bin/sh
# Train the model `t5-restore`, from the repository's root, on a machine with torch and numpy and nothing else.
#
#     sh scripts/train_t5_restore.sh DATA OUT [DEVICE] [MINUTES] [TRIAL_MINUTES] [LAYERS]
#
# DATA is `work/pairs.npz` of a run on the lines of examples/restoration, or that file compressed by xz; what is made is
# copied to OUT, in parts of 12 MB. Two short trials choose between two learning rates first.
set -u
data=$1 out=$2 device=${3:-cuda} minutes=${4:-5} trial=${5:-0.4} shape=${6:-layers=6,decoder_layers=16}
export PYTHONPATH="src${PYTHONPATH:+:$PYTHONPATH}"
mkdir -p "$out"

case $data in
    *.xz) python3 -c "import lzma, shutil, sys; shutil.copyfileobj(lzma.open(sys.argv[1]), open('pairs.npz', 'wb'), 1 << 24)" "$data" ;;
    *) cp "$data" pairs.npz ;;
esac

train() { # OUT MINUTES LR and more
    to=$1 most=$2 rate=$3
    shift 3
    python3 -m offramp tune --recipe calm --shape "$shape,width=256,heads=4,head_dim=64,inner=512,vocabulary=4096" \
        --data pairs.npz --out "$to" --device "$device" --minutes "$most" --lr "$rate" --batch-tokens "${BATCH:-12288}" --epochs 10 --dropout 0.1 \
        --patience 20 --json "$@"
}

best=1e-3 least=1000
for rate in 1e-3 3e-3; do
    train "trial-$rate" "$trial" $rate --evaluations 1 --classifier-steps 2 > "trial-$rate.json" || { echo "trial $rate failed"; continue; }
    loss=$(python3 -c "import json, sys; print(json.load(open(sys.argv[1]))['history'][-1]['top'])" "trial-$rate.json")
    echo "trial: learning rate $rate, loss of the top $loss"
    if python3 -c "import sys; sys.exit(not float('$loss') < float('$least'))"; then best=$rate least=$loss; fi
done
echo "learning rate $best"
train t5-restore "$minutes" $best --evaluations 10 --classifier-steps 300 > t5-restore.json
for file in config.json generation_config.json tokenizer.json tokenizer_config.json exits.json exits.safetensors MODEL_CARD.md run/history.json; do
    cp "t5-restore/$file" "$out/"
done
cp trial-*.json t5-restore.json "$out/"
split -b 12000000 t5-restore/model.safetensors "$out/model.safetensors."
(cd t5-restore && sha256sum model.safetensors) > "$out/sha256"
ls -l "$out"
