"""``partita decode``: tokens in, an audio file out."""

import argparse
import time

from pipelines.inference.loading import add_pipeline_arguments, check_output, load_pipeline


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", help="tokens, a .safetensors file")
    parser.add_argument("--output", required=True, help=".wav, .flac, .ogg or .opus file")
    parser.add_argument("--steps", type=int, help="of the decoder, 1 to 16 (default: the file's)")
    parser.add_argument("--preview", action="store_true", help="the codec's own decode, fast")
    parser.add_argument("--seed", type=int, help="of decoder and vocoder (default: the file's)")
    parser.add_argument("--plot", action="store_true", help="draw the audio, a PNG beside it")
    add_pipeline_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Decode, write, and print what came of it."""
    from codec.audio_file import FORMATS, write_audio
    from pipelines.inference.call_arguments import check_before_loading
    from pipelines.inference.endings import with_ending
    from pipelines.inference.shipped import find_shipped
    from pipelines.inference.token_file import check_tokens, load_tokens

    output = check_output(args.output, tuple(FORMATS))
    check_before_loading(find_shipped(args.pipeline), [], None, args.steps, (args.seed,))
    tokens = load_tokens(args.input)
    if args.plot:
        from pipelines.inference.plot import check_plotting

        check_plotting()
    pipeline = load_pipeline(args.pipeline, args.quiet)
    check_tokens(tokens, pipeline.codec, args.input)
    steps = tokens.settings.get("num_inference_steps") if args.steps is None else args.steps
    seed = tokens.decoder_seed if args.seed is None else args.seed
    preview = args.preview or (args.steps is None and tokens.settings.get("preview", False))
    start = time.perf_counter()
    audio = pipeline.decode(tokens.codes[None], seed, num_inference_steps=steps, preview=preview)
    audio = audio[0, :, : round(tokens.duration_s * pipeline.sample_rate)].cpu()
    audio = with_ending(audio, pipeline.sample_rate, tokens.settings.get("ending", "cut"))
    seconds = time.perf_counter() - start
    write_audio(output, audio, pipeline.sample_rate)
    if args.plot:
        from pipelines.inference.plot import plot_audio

        plot_audio(audio, pipeline.sample_rate, output.with_suffix(".png"), tokens.prompt)
    duration_s = audio.shape[-1] / pipeline.sample_rate
    print(f"{output}: {duration_s:.2f} s, seed {seed}")
    print(f"made in {seconds:.2f} s: {duration_s / seconds:.2f} times as fast as it plays")
    return 0
