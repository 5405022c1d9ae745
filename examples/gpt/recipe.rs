//! Sizes and training recipe: presets, configuration files, flags over both, and what makes sense.

use std::path::Path;

use serde::{Deserialize, Serialize};
use tapeflow::Precision;
use tapeflow::models::GptConfig;
use tapeflow::schedule::WarmupCosine;

use crate::failure::Failure;
use crate::options::Changes;

/// Everything that decides what is trained, and how, but for the text and the seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// What the user knows it by.
    pub name: String,
    /// The model; a vocabulary of 0 is the text's.
    pub sizes: GptConfig,
    /// Tokens of a block in training, where that is not the model's context.
    #[serde(default)]
    pub block_size: Option<usize>,
    pub steps: usize,
    pub batch_size: usize,
    pub learning_rate: f64,
    pub min_lr: f64,
    pub warmup_steps: usize,
    pub weight_decay: f64,
    pub betas: (f64, f64),
    /// 0: no bound.
    pub grad_clip: f64,
    #[serde(default, with = "named")]
    pub precision: Precision,
}

/// A precision by its name.
mod named {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use tapeflow::Precision;

    pub fn serialize<S: Serializer>(precision: &Precision, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(precision)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Precision, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

impl Recipe {
    /// What `--config` names, with the changes that flags make.
    pub fn new(config: Option<&str>, flags: &Changes) -> Result<Recipe, Failure> {
        let Some(config) = config else {
            return village()?.changed(flags).checked();
        };
        if GptConfig::PRESETS.contains(&config) {
            return preset(config)?.changed(flags).checked();
        }
        if !config.ends_with(".toml") {
            let known = GptConfig::PRESETS.join(", ");
            return Err(Failure::Usage(format!("unknown config `{config}`: known are {known}, or a file FILE.toml")));
        }
        let file = read(Path::new(config))?;
        let base = preset(file.base.as_deref().unwrap_or("cpu"))?;
        Recipe { name: config.to_owned(), ..base }.changed(&file).changed(flags).checked()
    }

    /// How a model that is there is trained further, with the changes that flags make: in small steps, on blocks that a
    /// CPU can do.
    pub fn fine_tuning(sizes: &GptConfig, flags: &Changes) -> Result<Recipe, Failure> {
        let learning_rate = 5e-5;
        let recipe = Recipe {
            name: "fine-tuning".to_owned(),
            sizes: sizes.clone(),
            block_size: Some(sizes.block_size.min(256)),
            steps: 200,
            batch_size: 4,
            learning_rate,
            min_lr: learning_rate / 10.0,
            warmup_steps: 20,
            weight_decay: 0.1,
            betas: (0.9, 0.99),
            grad_clip: 1.0,
            precision: Precision::F32,
        };
        let recipe = recipe.changed(flags).checked()?;
        let (block, context) = (recipe.block(), recipe.sizes.block_size);
        if block > context {
            let why = format!("block-size is {block}; it must be at most {context}, the context of the loaded model");
            return Err(Failure::Usage(why));
        }
        Ok(recipe)
    }

    /// Tokens of a block in training.
    pub fn block(&self) -> usize {
        self.block_size.unwrap_or(self.sizes.block_size)
    }

    /// The learning rate of each step.
    pub fn schedule(&self) -> WarmupCosine {
        WarmupCosine {
            learning_rate: self.learning_rate,
            min_lr: self.min_lr,
            warmup_steps: self.warmup_steps as u64,
            decay_steps: self.steps as u64,
        }
    }

    fn changed(mut self, changes: &Changes) -> Recipe {
        fn set<T: Copy>(value: &mut T, change: Option<T>) {
            *value = change.unwrap_or(*value);
        }
        let sizes = &mut self.sizes;
        set(self.block_size.as_mut().unwrap_or(&mut sizes.block_size), changes.block_size);
        set(&mut sizes.n_layer, changes.n_layer);
        set(&mut sizes.n_head, changes.n_head);
        set(&mut sizes.n_embd, changes.n_embd);
        set(&mut sizes.dropout, changes.dropout);
        set(&mut sizes.bias, changes.bias);
        set(&mut self.batch_size, changes.batch_size);
        set(&mut self.weight_decay, changes.weight_decay);
        set(&mut self.betas.0, changes.beta1);
        set(&mut self.betas.1, changes.beta2);
        set(&mut self.grad_clip, changes.grad_clip);
        set(&mut self.precision, changes.precision);
        // What the schedule's other numbers follow from comes first.
        if let Some(learning_rate) = changes.learning_rate {
            (self.learning_rate, self.min_lr) = (learning_rate, learning_rate / 10.0);
        }
        if let Some(steps) = changes.steps {
            (self.steps, self.warmup_steps) = (steps, self.warmup_steps.min(steps / 10));
        }
        set(&mut self.min_lr, changes.min_lr);
        set(&mut self.warmup_steps, changes.warmup_steps);
        self
    }

    fn checked(self) -> Result<Recipe, Failure> {
        let r = &self;
        // (name, value, whether it will do, what would)
        let counts = [("steps", r.steps), ("batch-size", r.batch_size)];
        let sizes = [
            ("block-size", r.block()),
            ("n-layer", r.sizes.n_layer),
            ("n-head", r.sizes.n_head),
            ("n-embd", r.sizes.n_embd),
        ];
        for (name, value) in counts.into_iter().chain(sizes) {
            if value == 0 {
                return Err(Failure::Usage(format!("{name} is 0; it must be at least 1")));
            }
        }
        let finite = |low: f64| move |v: f64| v >= low && v.is_finite();
        let share = |v: f64| (0.0..1.0).contains(&v);
        let numbers: [(&str, f64, bool, &str); 7] = [
            ("learning-rate", r.learning_rate, finite(f64::MIN_POSITIVE)(r.learning_rate), "above 0"),
            ("min-lr", r.min_lr, (0.0..=r.learning_rate).contains(&r.min_lr), "at least 0 and at most learning-rate"),
            ("weight-decay", r.weight_decay, finite(0.0)(r.weight_decay), "at least 0"),
            ("beta1", r.betas.0, share(r.betas.0), "at least 0 and below 1"),
            ("beta2", r.betas.1, share(r.betas.1), "at least 0 and below 1"),
            ("grad-clip", r.grad_clip, finite(0.0)(r.grad_clip), "at least 0 (0: no bound)"),
            ("dropout", r.sizes.dropout, share(r.sizes.dropout), "at least 0 and below 1"),
        ];
        if let Some((name, value, _, wanted)) = numbers.into_iter().find(|(_, _, fine, _)| !fine) {
            return Err(Failure::Usage(format!("{name} is {value}; it must be {wanted}")));
        }
        let (n_embd, n_head) = (r.sizes.n_embd, r.sizes.n_head);
        if n_embd % n_head != 0 {
            let (below, above) = (n_embd / n_head * n_head, n_embd.div_ceil(n_head) * n_head);
            let fitting = if below == 0 { format!("{above}") } else { format!("{below} or {above}") };
            return Err(Failure::Usage(format!(
                "n-embd {n_embd} is no multiple of n-head {n_head}, whose heads share it evenly: {fitting} would be"
            )));
        }
        Ok(self)
    }
}

/// What a run without flags does, for the built-in text: the model of `cpu` with a context that holds a paragraph,
/// trained for about two minutes on two cores.
fn village() -> Result<Recipe, Failure> {
    let changes = Changes {
        steps: Some(3000),
        batch_size: Some(8),
        block_size: Some(128),
        learning_rate: Some(2e-3),
        ..Changes::default()
    };
    Ok(Recipe { name: "village".to_owned(), ..preset("cpu")? }.changed(&changes))
}

fn preset(name: &str) -> Result<Recipe, Failure> {
    // The recipes that nanoGPT gives for these sizes in its README and config folder; `tiny` is our own.
    let (steps, batch_size, learning_rate, warmup_steps, beta2) = match name {
        "tiny" => (500, 12, 3e-3, 20, 0.99),
        "baby" => (5000, 64, 1e-3, 100, 0.99),
        "gpt2" => (600_000, 12, 6e-4, 2000, 0.95),
        _ => (2000, 12, 1e-3, 100, 0.99),
    };
    let Some(sizes) = GptConfig::preset(name, 0) else {
        let known = GptConfig::PRESETS.join(", ");
        return Err(Failure::Usage(format!("unknown config `{name}`: known are {known}")));
    };
    Ok(Recipe {
        name: name.to_owned(),
        sizes,
        block_size: None,
        steps,
        batch_size,
        learning_rate,
        min_lr: learning_rate / 10.0,
        warmup_steps,
        weight_decay: 0.1,
        betas: (0.9, beta2),
        grad_clip: 1.0,
        precision: Precision::F32,
    })
}

fn read(path: &Path) -> Result<Changes, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| Failure::Usage(format!("cannot read the config {}: {e}", path.display())))?;
    toml::from_str(&text).map_err(|e| {
        let before = e.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let index = before.matches('\n').count();
        let line = text.lines().nth(index).unwrap_or_default().trim();
        Failure::Usage(format!("{}, line {} (`{line}`): {}", path.display(), index + 1, e.message()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(config: Option<&str>, flags: Changes) -> String {
        match Recipe::new(config, &flags) {
            Err(Failure::Usage(message)) => message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn presets_are_nanogpts_and_flags_override_them() {
        let cpu = Recipe::new(Some("cpu"), &Changes::default()).unwrap();
        assert_eq!((cpu.steps, cpu.batch_size, cpu.min_lr, cpu.warmup_steps), (2000, 12, 1e-4, 100));
        assert_eq!((cpu.betas, cpu.weight_decay, cpu.grad_clip), ((0.9, 0.99), 0.1, 1.0));
        let short = Changes { steps: Some(40), learning_rate: Some(1e-2), n_layer: Some(1), ..Changes::default() };
        let short = Recipe::new(Some("cpu"), &short).unwrap();
        assert_eq!((short.steps, short.warmup_steps, short.min_lr, short.sizes.n_layer), (40, 4, 1e-3, 1));
        let slow = Changes { steps: Some(40), warmup_steps: Some(30), min_lr: Some(0.0), ..Changes::default() };
        let slow = Recipe::new(Some("baby"), &slow).unwrap();
        assert_eq!((slow.warmup_steps, slow.min_lr, slow.sizes.dropout), (30, 0.0, 0.2));
    }

    #[test]
    fn fine_tuning_keeps_the_model_and_its_context() {
        let sizes = GptConfig { dropout: 0.1, ..GptConfig::preset("gpt2", 50257).unwrap() };
        let plain = Recipe::fine_tuning(&sizes, &Changes::default()).unwrap();
        assert_eq!((&plain.sizes, plain.block(), plain.learning_rate), (&sizes, 256, 5e-5));
        let flags = Changes { block_size: Some(1024), dropout: Some(0.0), ..Changes::default() };
        let changed = Recipe::fine_tuning(&sizes, &flags).unwrap();
        assert_eq!((changed.sizes.dropout, changed.sizes.block_size, changed.block()), (0.0, 1024, 1024));
        let flags = Changes { block_size: Some(1025), ..Changes::default() };
        let said = Recipe::fine_tuning(&sizes, &flags).unwrap_err();
        assert!(matches!(said, Failure::Usage(said) if said.contains("at most 1024, the context of the loaded model")));
    }

    #[test]
    fn what_makes_no_sense_is_named_with_what_would() {
        let message_of = |change: fn(&mut Changes)| {
            let mut flags = Changes::default();
            change(&mut flags);
            message(None, flags)
        };
        assert_eq!(message_of(|c| c.learning_rate = Some(f64::NAN)), "learning-rate is NaN; it must be above 0");
        assert_eq!(message_of(|c| c.learning_rate = Some(0.0)), "learning-rate is 0; it must be above 0");
        assert!(message_of(|c| c.min_lr = Some(1.0)).contains("at most learning-rate"));
        assert!(message_of(|c| c.beta2 = Some(1.0)).contains("below 1"));
        assert!(message_of(|c| c.grad_clip = Some(-1.0)).contains("at least 0"));
        assert!(message_of(|c| c.dropout = Some(f64::INFINITY)).contains("below 1"));
        assert!(message_of(|c| c.n_embd = Some(130)).contains("128 or 132"));
        assert!(message_of(|c| c.batch_size = Some(0)).contains("at least 1"));
        assert!(message(Some("huge"), Changes::default()).contains("tiny, cpu, baby, gpt2, or a file"));
        assert!(message(Some("no/such.toml"), Changes::default()).contains("no/such.toml"));
    }

    #[test]
    fn a_file_changes_its_base() {
        let path = std::env::temp_dir().join(format!("tapeflow-recipe-{}.toml", std::process::id()));
        let name = path.to_string_lossy().into_owned();
        std::fs::write(&path, "base = \"baby\"\nn_layer = 2\nlearning_rate = 1e-2\n").unwrap();
        let flags = Changes { n_layer: Some(3), ..Changes::default() };
        let recipe = Recipe::new(Some(&name), &flags).unwrap();
        assert_eq!((recipe.sizes.n_layer, recipe.sizes.n_embd, recipe.learning_rate), (3, 384, 1e-2));
        std::fs::write(&path, "n_layer = 2\nn_layers = 2\n").unwrap();
        let said = message(Some(&name), Changes::default());
        assert!(said.contains("line 2") && said.contains("n_layers") && said.contains("`n_layer`"), "{said}");
        std::fs::remove_file(path).unwrap();
    }
}
