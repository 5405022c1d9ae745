//! A training run: what is evaluated, shown and saved, and when.

use std::ops::ControlFlow;
use std::time::Instant;

use tapeflow::checkpoint::{Training, resume};
use tapeflow::data::{Blocks, Loader, Split};
use tapeflow::metrics::Record;
use tapeflow::models::{Gpt, GptConfig};
use tapeflow::progress::Progress;
use tapeflow::{
    AdamW, Generator, LossScaler, ModuleExt, Optimizer, Precision, Result as NnResult, Step, Trainer, pool,
};

use crate::checkpoint::{self, Loaded, RunState, Stopped};
use crate::evaluate;
use crate::failure::Failure;
use crate::options::{Eval, Options};
use crate::recipe::Recipe;
use crate::run_folder::RunFolder;
use crate::sample;
use crate::stop;
use crate::text::Text;

/// Trains as the options say. Everything that can be wrong with them is found before the run's folder is made.
pub fn train(options: &Options) -> Result<(), Failure> {
    let stopped = options.resume.as_deref().map(checkpoint::stopped).transpose()?;
    let loaded = options.load.as_deref().map(checkpoint::load).transpose()?;
    let (options, recipe) = match (&stopped, &loaded) {
        (Some(Stopped { state, .. }), _) => (&as_begun(options, state), state.recipe.clone()),
        (None, Some(Loaded { model, .. })) => (options, Recipe::fine_tuning(model.config(), &options.changes)?),
        (None, None) => (options, Recipe::new(options.config.as_deref(), &options.changes)?),
    };
    let generator = Generator::new(options.seed);
    let (model, tokenizer, pretrained) = match (loaded, &stopped) {
        (Some(Loaded { model, tokenizer, pretrained }), _) => {
            (Some(model.dropout(recipe.sizes.dropout, &generator)), Some(tokenizer), pretrained)
        }
        (None, Some(stopped)) => (None, Some(stopped.tokenizer()?), stopped.state.pretrained),
        (None, None) => (None, None, false),
    };
    let text = Text::read(options.data.as_deref(), recipe.block(), tokenizer)?;
    let model = match (model, recipe.sizes.vocab_size) {
        (Some(model), _) => model,
        (None, 0) => {
            Gpt::new(&GptConfig { vocab_size: text.tokenizer.vocab_size(), ..recipe.sizes.clone() }, &generator)?
        }
        (None, _) => Gpt::new(&recipe.sizes, &generator)?,
    };
    let model = model.recompute(options.recompute);
    let mut optimizer = optimizer(&model, &recipe);
    let mut state = State::new();
    if let Some(stopped) = &stopped {
        state.first = resumed(stopped, &text, &model, optimizer.as_mut(), &generator)?;
        state.done = state.first;
        (state.train_loss, state.val_loss) = (stopped.state.train_loss, stopped.state.val_loss);
    }
    stop::at_ctrl_c()?;
    let mut folder = match stopped.as_ref().and_then(|s| s.run.as_deref()) {
        Some(run) => RunFolder::reopen(run, state.done as u64, options.keep)?,
        None => RunFolder::create(&options.out, options.keep)?,
    };
    folder.describe(&recipe)?;
    let (recipe, text, model, generator) = (&recipe, &text, &model, &generator);
    let mut run = Run { options, recipe, text, model, generator, pretrained, folder, progress: None, state };
    run.introduce();
    // Evaluations and samples too: they show the model as it is trained.
    let outcome = recipe
        .precision
        .scope(|| run.steps(optimizer.as_mut(), stopped.is_some()).and_then(|()| run.conclude(optimizer.as_ref())));
    run.folder.discard_if_empty();
    outcome
}

/// The recipe's AdamW; in f16 with a scaled loss.
fn optimizer(model: &Gpt, recipe: &Recipe) -> Box<dyn Optimizer> {
    let adam = AdamW::new(model)
        .betas(recipe.betas.0, recipe.betas.1)
        .weight_decay(recipe.weight_decay)
        .group_where(|_, shape| shape.len() < 2, |group| group.weight_decay(0.0));
    match recipe.precision {
        Precision::F16 => Box::new(LossScaler::new(adam)),
        _ => Box::new(adam),
    }
}

/// The options that a run began with, and what may be changed of them.
fn as_begun(options: &Options, state: &RunState) -> Options {
    let data = options.data.clone().or_else(|| state.data.clone());
    let (seed, eval, eval_interval) = (state.seed, state.eval, state.eval_interval);
    Options { data, seed, eval, eval_interval, ..options.clone() }
}

/// Sets everything to what the checkpoint holds; returns how many steps were taken.
fn resumed(
    stopped: &Stopped,
    text: &Text,
    model: &Gpt,
    optimizer: &mut dyn Optimizer,
    generator: &Generator,
) -> Result<usize, Failure> {
    let path = &stopped.checkpoint;
    if text.checksum != stopped.state.text {
        let (name, path) = (&text.name, path.display());
        return Err(Failure::Run(format!("{name} is not the text that the run of {path} was trained on")));
    }
    Ok(resume(path, model, optimizer, &[(GENERATOR, generator)])? as usize)
}

/// The folder for a fine-tuned model in the Hugging Face layout.
const PRETRAINED: &str = "pretrained";

/// The name of the generator in checkpoints.
const GENERATOR: &str = "model";

struct Run<'a> {
    options: &'a Options,
    recipe: &'a Recipe,
    text: &'a Text,
    model: &'a Gpt,
    /// Of the initial weights and of dropout.
    generator: &'a Generator,
    /// Whether the model came in the Hugging Face layout.
    pretrained: bool,
    folder: RunFolder,
    /// From the first step on.
    progress: Option<Progress>,
    state: State,
}

/// What is known after each step.
struct State {
    /// How many steps had been taken when the run was begun or continued.
    first: usize,
    /// How many steps were taken.
    done: usize,
    /// The validation loss of the present weights, where it was evaluated.
    val_loss: Option<f64>,
    /// A running mean of the training loss.
    train_loss: Option<f64>,
    /// Seconds that the steps took, evaluations and samples not counted.
    seconds: f64,
    /// When the last thing was done that is no step.
    since: Instant,
    diverged: bool,
}

impl State {
    fn new() -> State {
        let since = Instant::now();
        State { first: 0, done: 0, val_loss: None, train_loss: None, seconds: 0.0, since, diverged: false }
    }
}

impl Run<'_> {
    fn introduce(&self) {
        let (text, recipe, sizes) = (self.text, self.recipe, self.model.config());
        let count = |split| text.dataset.split(split).len();
        println!(
            "text      {}: {} {} for training, {} for validation, {} different ones",
            text.name,
            count(Split::Train),
            text.unit,
            count(Split::Validation),
            sizes.vocab_size
        );
        println!(
            "model     {} layers, {} heads, {} wide, block {}: {} parameters",
            sizes.n_layer,
            sizes.n_head,
            sizes.n_embd,
            sizes.block_size,
            self.model.num_parameters()
        );
        println!(
            "training  config {}: {} steps of {} blocks, learning rate {} to {}, {}, seed {}, on {} with {} threads",
            recipe.name,
            recipe.steps,
            recipe.batch_size,
            recipe.learning_rate,
            recipe.min_lr,
            recipe.precision,
            self.options.seed,
            self.options.device,
            pool::global().threads()
        );
        println!("output    {}", self.folder.path().display());
        if self.state.first > 0 {
            println!("continues after {} of {} steps", self.state.first, recipe.steps);
        }
    }

    fn steps(&mut self, optimizer: &mut dyn Optimizer, resumed: bool) -> Result<(), Failure> {
        let (options, recipe, model) = (self.options, self.recipe, self.model);
        if !resumed {
            println!("{}", sample::show(model, self.text, options, options.tokens.min(200), "sample before training")?);
        }
        let steps = self.state.first as u64..recipe.steps as u64;
        self.progress = Some(Progress::new(steps.start, steps.end));
        if !resumed {
            self.evaluate()?;
        }

        let (data, seed, device) = (self.text.dataset.clone(), options.seed, options.device);
        let (batch, block) = (recipe.batch_size, recipe.block());
        let batches = Loader::new(steps.clone(), move |step| {
            device.scope(|| data.random_blocks(Split::Train, batch, block, seed, step))
        });
        let schedule = recipe.schedule();
        let trainer = Trainer { steps, schedule: &schedule, grad_clip: recipe.grad_clip };
        self.state.since = Instant::now();
        let loss = |b: &Blocks| model.loss(&b.inputs, &b.targets);
        trainer.run_with(model, optimizer, batches, loss, |step, optimizer| self.after(step, optimizer))?;
        if self.state.diverged {
            let step = self.state.done;
            return Err(Failure::Run(format!(
                "the loss of step {step} is no finite number: training has diverged; a lower --learning-rate than {} or a \
                 --grad-clip above 0 may help",
                recipe.learning_rate
            )));
        }
        Ok(())
    }

    /// Records a step, and evaluates, samples and saves where it is time to.
    fn after(&mut self, step: &Step, optimizer: &dyn Optimizer) -> NnResult<ControlFlow<()>> {
        let loss = f64::from(step.loss.item::<f32>()?);
        let seconds = self.state.since.elapsed().as_secs_f64();
        self.state.seconds += seconds;
        let tokens = (self.recipe.batch_size * self.recipe.block()) as f64;
        self.folder.record(&Record {
            step: step.step,
            train_loss: Some(loss),
            val_loss: self.state.val_loss.take(),
            learning_rate: Some(step.learning_rate),
            tokens_per_second: Some(tokens / seconds),
            extra: Vec::new(),
        })?;
        if !loss.is_finite() {
            self.state.diverged = true;
            return Ok(ControlFlow::Break(()));
        }
        self.state.done = step.step as usize + 1;
        let mean = self.state.train_loss.map_or(loss, |mean| mean + 0.02 * (loss - mean));
        self.state.train_loss = Some(mean);
        if let Some(progress) = &mut self.progress {
            progress.set_train_loss(mean);
            progress.set_tokens_per_second(tokens * (self.state.done - self.state.first) as f64 / self.state.seconds);
            progress.advance_to(self.state.done as u64);
        }
        if stop::is_wanted() {
            return Ok(ControlFlow::Break(()));
        }
        let (done, steps) = (self.state.done, self.recipe.steps);
        if self.is_evaluated(done) {
            self.evaluate()?;
        }
        if done < steps && done % self.options.save_every.unwrap_or(self.interval()) == 0 {
            self.save(optimizer)?;
        }
        if done == steps / 2 && done > 0 {
            self.sample(&format!("sample after {done} of {steps} steps"))?;
        }
        self.state.since = Instant::now();
        Ok(ControlFlow::Continue(()))
    }

    /// Whether the run pauses after so many steps for an evaluation.
    fn is_evaluated(&self, done: usize) -> bool {
        done < self.recipe.steps && done.is_multiple_of(self.interval())
    }

    /// Writes the checkpoint of the present step: the same one, however the run came here.
    fn save(&mut self, optimizer: &dyn Optimizer) -> NnResult<()> {
        let state = RunState {
            recipe: self.recipe.clone(),
            seed: self.options.seed,
            data: self.options.data.clone(),
            text: self.text.checksum,
            eval: self.options.eval,
            eval_interval: self.options.eval_interval,
            train_loss: self.state.train_loss,
            val_loss: self.state.val_loss.filter(|_| self.is_evaluated(self.state.done)),
            pretrained: self.pretrained,
        };
        let files = checkpoint::files(self.model, self.text.tokenizer.as_ref(), &state)?;
        let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (*name, &bytes[..])).collect();
        let step = self.state.done as u64;
        let training = Training { model: self.model, optimizer, generators: &[(GENERATOR, self.generator)], step };
        self.folder.save(&training, &files)
    }

    fn interval(&self) -> usize {
        self.options.eval_interval.unwrap_or_else(|| (self.recipe.steps / 10).clamp(1, 250))
    }

    fn evaluate(&mut self) -> NnResult<()> {
        let batches = self.options.eval.batches();
        let data = &self.text.dataset;
        let loss = evaluate::on_some_blocks(self.model, data, self.recipe, self.options.seed, batches)?;
        self.state.val_loss = Some(loss);
        if let Some(progress) = &mut self.progress {
            progress.set_val_loss(loss);
        }
        Ok(())
    }

    fn sample(&self, title: &str) -> NnResult<()> {
        let shown = sample::show(self.model, self.text, self.options, self.options.tokens, title)?;
        match &self.progress {
            Some(progress) => progress.print(&shown),
            None => println!("{shown}"),
        }
        Ok(())
    }

    /// The last evaluation, and everything that is left to be read.
    fn conclude(&mut self, optimizer: &dyn Optimizer) -> Result<(), Failure> {
        self.evaluate()?;
        self.save(optimizer)?;
        let stopped = self.state.done < self.recipe.steps;
        let val_loss = self.state.val_loss.take();
        let mut last = Record { val_loss, ..Record::new(self.state.done as u64) };
        let full = match self.options.eval {
            Eval::Full if !stopped => Some(evaluate::on_whole_split(self.model, &self.text.dataset, self.recipe)?),
            _ => None,
        };
        last.extra.extend(full.map(|loss| ("val_loss_full".to_owned(), loss)));
        if self.pretrained {
            let folder = self.folder.path().join(PRETRAINED);
            self.model.save_pretrained(folder, Some(self.text.tokenizer.as_ref()))?;
        }
        self.folder.record(&last)?;
        self.folder.draw(&format!("{}, config {}", self.text.name, self.recipe.name))?;
        // What is printed from here on is below the bar.
        if let Some(progress) = self.progress.take() {
            progress.finish();
        }
        let done = self.state.done;
        self.sample(&format!("sample after {done} steps"))?;
        if stopped {
            println!(
                "stopped after {done} of {} steps; --resume {} continues",
                self.recipe.steps,
                self.folder.path().display()
            );
        }
        println!("training loss {:.4} (running mean)", self.state.train_loss.unwrap_or(f64::NAN));
        println!("validation loss {:.4} ({} batches)", val_loss.unwrap_or(f64::NAN), self.options.eval.batches());
        if let Some(loss) = full {
            println!("validation loss {loss:.4} (whole split)");
        }
        let taken = done - self.state.first;
        let tokens = (self.recipe.batch_size * self.recipe.block() * taken) as f64;
        if taken > 0 {
            println!("{:.1} s in steps, {:.0} tokens/s", self.state.seconds, tokens / self.state.seconds);
        }
        let path = self.folder.path().display();
        println!("written to {path}: checkpoint, metrics.jsonl, loss.svg");
        if self.pretrained {
            println!("{path}/{PRETRAINED} has the model in the layout it came in, as transformers reads it");
        }
        println!("more of it: cargo run --release --example gpt -- --load {path} --generate \"...\"");
        Ok(())
    }
}
