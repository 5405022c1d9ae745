//! Generated text: samples during training, and the continuation of a prompt by a loaded checkpoint.

use std::io::{ErrorKind, Write};
use std::path::Path;

use tapeflow::Result as NnResult;
use tapeflow::models::{Gpt, Sampler};
use tapeflow::tokenizer::Tokenizer;

use crate::checkpoint;
use crate::failure::Failure;
use crate::options::Options;
use crate::text::Text;

/// A sample of the model as it is now, as it is shown; the same draws at each call.
pub fn show(model: &Gpt, text: &Text, options: &Options, count: usize, title: &str) -> NnResult<String> {
    let tokens = model.generate(&[text.beginning], count, &mut sampler(options))?;
    let sample = text.tokenizer.decode(&tokens)?;
    let rest = "─".repeat(76usize.saturating_sub(title.chars().count()));
    Ok(format!("\n── {title} {rest}\n{}\n{}\n", sample.trim_matches('\n'), "─".repeat(80)))
}

/// Continues the prompt, on stdout.
pub fn from_checkpoint(folder: &Path, options: &Options) -> Result<(), Failure> {
    let (model, tokenizer) = checkpoint::load(folder)?;
    let prompt = options.generate.as_deref().unwrap_or_default();
    let mut tokens = tokenizer.encode(prompt)?;
    if tokens.is_empty() {
        return Err(Failure::Usage("the prompt is empty: --generate needs at least one character to continue".into()));
    }
    let (mut written, mut failed) = (0, None);
    let mut out = std::io::stdout().lock();
    let mut show = |tokens: &[u32], last: bool| {
        if failed.is_none() {
            failed = print_new(&mut out, tokenizer.as_ref(), tokens, &mut written, last).err();
        }
    };
    show(&tokens, false);
    let given = tokens.clone();
    model.generate_each(&given, options.tokens, &mut sampler(options), |token| {
        tokens.push(token);
        show(&tokens, false);
    })?;
    show(&tokens, true);
    failed.map_or(Ok(()), Err)
}

/// Prints what the newest tokens add to the text, so that one can read along.
fn print_new(
    out: &mut impl Write,
    tokenizer: &dyn Tokenizer,
    tokens: &[u32],
    written: &mut usize,
    last: bool,
) -> Result<(), Failure> {
    let text = tokenizer.decode(tokens)?;
    // Of a character that takes several tokens, the first ones decode to a replacement; it waits for the others.
    let new =
        text.get(*written..).filter(|new| last || !new.ends_with(char::REPLACEMENT_CHARACTER)).unwrap_or_default();
    *written += new.len();
    let end = if last && !text.ends_with('\n') { "\n" } else { "" };
    match out.write_all(new.as_bytes()).and_then(|()| out.write_all(end.as_bytes())).and_then(|()| out.flush()) {
        // The reader has seen enough (`| head`).
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
        Err(e) => Err(Failure::Run(format!("cannot write the sample: {e}"))),
        Ok(()) => Ok(()),
    }
}

fn sampler(options: &Options) -> Sampler {
    Sampler::new(options.seed).temperature(options.temperature).top_k(options.top_k)
}
