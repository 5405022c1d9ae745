//! Generated text: samples during training, and the continuation of prompts by a loaded checkpoint.

use std::io::{ErrorKind, Write};
use std::path::Path;

use tapeflow::models::{GenerateOptions, Gpt};
use tapeflow::tokenizer::Tokenizer;
use tapeflow::{ModuleExt, Result as NnResult};

use crate::checkpoint::{self, Loaded};
use crate::failure::Failure;
use crate::options::Options;
use crate::text::{Text, beginning};

/// A sample of the model as it is now, as it is shown; the same draws at each call.
pub fn show(model: &Gpt, text: &Text, options: &Options, count: usize, title: &str) -> NnResult<String> {
    let tokenizer = text.tokenizer.as_ref();
    let (prompt, how) = (tokenizer.decode(&[text.beginning])?, how(options, count, tokenizer));
    let sample = model.generate_text(&[prompt], tokenizer, &how)?.collect::<NnResult<Vec<_>>>()?.concat().concat();
    let rest = "─".repeat(76usize.saturating_sub(title.chars().count()));
    Ok(format!("\n── {title} {rest}\n{}\n{}\n", sample.trim_matches('\n'), "─".repeat(80)))
}

/// Continues the prompts, on stdout.
pub fn from_checkpoint(folder: &Path, options: &Options) -> Result<(), Failure> {
    let Loaded { model, tokenizer, .. } = checkpoint::load(folder)?;
    if let Some(precision) = options.changes.precision {
        model.to(precision.dtype())?;
    }
    if options.int8 {
        model.quantize_int8()?;
    }
    model.prepack()?;
    if options.generate.iter().any(String::is_empty) {
        return Err(Failure::Usage("the prompt is empty: --generate needs at least one character to continue".into()));
    }
    // Without a prompt a text begins, and what it begins after is not shown.
    let (prompts, texts) = match (&options.generate[..], beginning(tokenizer.as_ref())) {
        ([], Some(token)) => (vec![tokenizer.decode(&[token])?], vec![String::new()]),
        ([], None) => {
            let why = "the model knows neither an end of texts nor of lines: --generate must say what to continue";
            return Err(Failure::Usage(why.into()));
        }
        (prompts, _) => (prompts.to_vec(), prompts.to_vec()),
    };
    let how = GenerateOptions { stop: options.stop.clone(), ..how(options, options.tokens, tokenizer.as_ref()) };
    let mut generation = model.generate_text(&prompts, tokenizer.as_ref(), &how)?;
    let mut page = Page { out: std::io::stdout().lock(), texts, row: 0, written: 0 };
    let mut wanted = page.show(|row| generation.has_ended(row))?;
    while wanted && let Some(round) = generation.next() {
        page.texts.iter_mut().zip(round?).for_each(|(text, piece)| *text += &piece);
        wanted = page.show(|row| generation.has_ended(row))?;
    }
    Ok(())
}

/// The texts one after another, the first that is not complete as it grows, so that one can read along.
struct Page<W> {
    out: W,
    texts: Vec<String>,
    /// The text that is written, and how much of it is.
    row: usize,
    written: usize,
}

impl<W: Write> Page<W> {
    /// Writes what is new; whether anybody is reading.
    fn show(&mut self, has_ended: impl Fn(usize) -> bool) -> Result<bool, Failure> {
        let mut new = String::new();
        while let Some(text) = self.texts.get(self.row) {
            new += &text[self.written..];
            self.written = text.len();
            if !has_ended(self.row) {
                break;
            }
            if !text.ends_with('\n') {
                new.push('\n');
            }
            self.row += 1;
            self.written = 0;
            // Texts are an empty line apart.
            if self.row < self.texts.len() {
                new.push('\n');
            }
        }
        match self.out.write_all(new.as_bytes()).and_then(|()| self.out.flush()) {
            // The reader has seen enough (`| head`).
            Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(false),
            Err(e) => Err(Failure::Run(format!("cannot write the sample: {e}"))),
            Ok(()) => Ok(true),
        }
    }
}

fn how(options: &Options, max_tokens: usize, tokenizer: &dyn Tokenizer) -> GenerateOptions {
    GenerateOptions {
        temperature: options.temperature,
        top_k: options.top_k,
        top_p: options.top_p,
        repetition_penalty: options.repetition_penalty,
        seed: options.seed,
        stop_tokens: tokenizer.end_of_text().into_iter().collect(),
        ..GenerateOptions::new(max_tokens)
    }
}
