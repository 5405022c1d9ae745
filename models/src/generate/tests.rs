//! Generation with a cache against the same without one, several prompts against each alone, text against tokens.

use tapeflow_nn::tokenizer::{ByteTokenizer, CharTokenizer, Tokenizer};
use tapeflow_nn::{DType, Forward, Generator, ModuleExt, Result, Tensor, check_nan, no_grad};

use crate::decode::DecodeStep;
use crate::{GenerateOptions, Gpt, GptConfig, KvCache, TextDecoder};

/// A model whose predictions differ much from each other: greedy tokens are far from ties.
fn gpt(block_size: usize, vocab_size: usize) -> Gpt {
    let config = GptConfig { block_size, vocab_size, n_layer: 2, n_head: 2, n_embd: 16, dropout: 0.1, bias: true };
    let generator = Generator::new(3);
    let model = Gpt::new(&config, &generator).unwrap();
    for (_, parameter) in model.named_parameters() {
        let noise = generator.randn(parameter.tensor().shape()) * 0.3;
        parameter.set(&(parameter.tensor() + noise).detach()).unwrap();
    }
    model
}

fn tokens(model: &Gpt, prompt: &[u32], options: &GenerateOptions) -> Vec<u32> {
    model.generate(prompt, options).unwrap().collect::<Result<_>>().unwrap()
}

#[test]
fn tokens_are_the_same_with_and_without_a_cache() {
    for block in [1, 2, 3, 8, 13, 32] {
        let model = gpt(block, 17);
        for length in [1, 2, block, 2 * block + 1] {
            let prompt: Vec<u32> = (0..length as u32).map(|i| (i * 7 + 3) % 17).collect();
            let with = GenerateOptions::greedy(3 * block + 4);
            let without = GenerateOptions { cache: false, ..with.clone() };
            assert_eq!(tokens(&model, &prompt, &with), tokens(&model, &prompt, &without), "{block}, {length}");
            let drawn = GenerateOptions { temperature: 0.9, top_p: Some(0.9), repetition_penalty: 1.2, ..with };
            let without = GenerateOptions { cache: false, ..drawn.clone() };
            assert_eq!(tokens(&model, &prompt, &drawn), tokens(&model, &prompt, &without), "{block}, {length}");
        }
    }
}

#[test]
fn logits_are_those_of_the_whole_context() -> Result<()> {
    let model = gpt(16, 17);
    let prompts: [&[u32]; 3] = [&[5, 1, 16, 4, 4], &[2], &[0, 3, 9, 9, 9, 1, 2]];
    let mut seen: Vec<Vec<u32>> = prompts.iter().map(|p| p.to_vec()).collect();
    let mut cache = KvCache::new(&model, 3)?;
    for (row, prompt) in prompts.iter().enumerate() {
        model.prefill(&prompt[..prompt.len() - 1], 8, row, &mut cache)?;
    }
    for step in 0..9u32 {
        let last: Vec<Option<u32>> = seen.iter().map(|s| s.last().copied()).collect();
        let logits = model.advance(&last, &mut cache)?.to_vec::<f32>()?;
        for (row, seen) in seen.iter_mut().enumerate() {
            let whole: Vec<i64> = seen.iter().map(|&t| i64::from(t)).collect();
            let whole = Tensor::from_vec(whole, [1, seen.len()]);
            let expected = no_grad(|| model.eval(|| model.forward(&whole))).to_vec::<f32>()?;
            for (a, b) in logits[row * 17..(row + 1) * 17].iter().zip(&expected[expected.len() - 17..]) {
                assert!((a - b).abs() < 1e-4, "{a} and {b} in row {row} at step {step}");
            }
            seen.push((step * 5 + row as u32) % 17);
            assert_eq!(cache.filled(row), seen.len() - 1);
        }
    }
    // A row that waits keeps what it holds.
    let before = model.advance(&[Some(1), None, None], &mut cache);
    assert!(before.is_ok() && cache.filled(0) == 14 && cache.filled(1) == 9);
    cache.truncate(0, 13);
    let again = model.advance(&[Some(1), None, None], &mut cache)?;
    assert_eq!(before?.slice(0, ..1).to_vec::<f32>()?, again.slice(0, ..1).to_vec::<f32>()?);
    Ok(())
}

#[test]
fn prompts_of_unequal_length_are_continued_as_each_alone() -> Result<()> {
    let model = gpt(8, 17);
    let prompts: [&[u32]; 4] = [&[1, 2, 3], &[4], &[5, 6, 7, 8, 9, 10, 11, 12, 13], &[16, 16, 0, 1, 2]];
    for temperature in [0.0, 1.0] {
        let options = GenerateOptions { temperature, seed: 11, ..GenerateOptions::new(20) };
        let mut rows: Vec<Vec<u32>> = vec![Vec::new(); 4];
        let mut generation = model.generate_batch(&prompts, &options)?;
        assert_eq!(generation.rows(), 4);
        while let Some(round) = generation.next() {
            for (row, token) in round?.into_iter().enumerate() {
                rows[row].extend(token);
                if row == 1 && rows[1].len() == 6 {
                    generation.end(1);
                }
            }
        }
        for (row, found) in rows.iter().enumerate() {
            let alone = tokens(&model, prompts[row], &GenerateOptions { seed: 11 + row as u64, ..options.clone() });
            assert_eq!(found[..], alone[..if row == 1 { 6 } else { 20 }], "prompt {row}");
        }
    }
    Ok(())
}

#[test]
fn stop_tokens_end_a_prompt() {
    let model = gpt(8, 17);
    let options = GenerateOptions::greedy(30);
    let all = tokens(&model, &[1, 2], &options);
    let stop = *all.iter().find(|t| all[0] != **t).unwrap_or(&all[0]);
    let first = all.iter().position(|&t| t == stop).unwrap();
    let stopped = tokens(&model, &[1, 2], &GenerateOptions { stop_tokens: vec![stop], ..options });
    assert_eq!(stopped, all[..first]);
}

#[test]
fn options_that_make_no_sense_are_named() {
    let model = gpt(8, 17);
    let said = |prompt: &[u32], change: fn(&mut GenerateOptions)| {
        let mut options = GenerateOptions::new(3);
        change(&mut options);
        model.generate(prompt, &options).map(|_| ()).unwrap_err().to_string()
    };
    assert!(said(&[], |_| {}).contains("the prompt is empty"));
    assert!(said(&[1], |o| o.temperature = f64::NAN).contains("temperature of NaN"));
    assert!(said(&[1], |o| o.top_k = Some(0)).contains("top-k of 0"));
    assert!(said(&[1], |o| o.top_p = Some(1.5)).contains("top-p of 1.5"));
    assert!(said(&[1], |o| o.repetition_penalty = -1.0).contains("repetition penalty of -1"));
    assert!(said(&[1], |o| o.stop_tokens = vec![17]).contains("stop token 17 is beyond the vocabulary of 17"));
    assert!(said(&[1], |o| o.stop = vec!["x".into()]).contains("generate_text"));
    let batch = model.generate_batch(&[&[1][..], &[]], &GenerateOptions::new(3)).map(|_| ());
    assert!(batch.unwrap_err().to_string().contains("prompt 1 is empty"));
    assert!(model.generate_batch::<&[u32]>(&[], &GenerateOptions::new(3)).is_err());
    let mut unknown = model.generate(&[1, 17, 2], &GenerateOptions::new(3)).unwrap();
    assert!(unknown.next().unwrap().unwrap_err().to_string().contains("17"));
    assert!(unknown.next().is_none());

    let mut cache = KvCache::new(&model, 1).unwrap();
    assert!(model.prefill(&[1, 2], 1, 0, &mut cache).unwrap_err().to_string().contains("2 tokens, padded to 1"));
    assert!(model.prefill(&[1], 1, 1, &mut cache).unwrap_err().to_string().contains("1 rows"));
    assert!(model.advance(&[], &mut cache).is_err());
    model.prefill(&[1; 8], 8, 0, &mut cache).unwrap();
    assert!(model.advance(&[Some(1)], &mut cache).unwrap_err().to_string().contains("none of which may be full"));
    assert!(gpt(4, 17).advance(&[Some(1)], &mut cache).unwrap_err().to_string().contains("other sizes"));
    assert!(KvCache::new(&model, 0).is_err());
}

#[test]
fn text_comes_in_whole_characters_and_ends_before_a_stop_string() -> Result<()> {
    let tokenizer = CharTokenizer::from_text("abcdefghij stop");
    let push = |decoder: &mut TextDecoder, text: &str| -> Result<Vec<String>> {
        tokenizer.encode(text)?.into_iter().map(|token| decoder.push(token)).collect()
    };
    let stops = ["stop".to_owned(), "tab".to_owned()];
    let mut decoder = TextDecoder::after(&tokenizer, &tokenizer.encode("sto")?, &stops)?;
    assert_eq!(push(&mut decoder, "pa st")?, ["p", "a", " ", "", ""]);
    assert_eq!(push(&mut decoder, "c")?, ["stc"]);
    assert_eq!(push(&mut decoder, "sta")?, ["", "", "s"]);
    assert!(!decoder.has_stopped());
    assert_eq!(push(&mut decoder, "bc")?, ["", ""]);
    assert!(decoder.has_stopped() && decoder.finish()?.is_empty());
    let mut unfinished = TextDecoder::after(&tokenizer, &[], &stops)?;
    assert_eq!((push(&mut unfinished, "sto")?.concat(), unfinished.finish()?), (String::new(), "sto".to_owned()));

    let mut bytes = TextDecoder::after(&ByteTokenizer, &[], &[])?;
    let pieces: Vec<String> = "aé€".bytes().map(|b| bytes.push(u32::from(b))).collect::<Result<_>>()?;
    assert_eq!(pieces, ["a", "", "é", "", "", "€"]);
    // A prompt that ends within a character, one that ends with U+FFFD itself, and bytes that are no UTF-8.
    let pieces = |prompt: &[u8], bytes: &[u8]| -> Result<Vec<String>> {
        let tokens: Vec<u32> = prompt.iter().map(|&b| b.into()).collect();
        let mut decoder = TextDecoder::after(&ByteTokenizer, &tokens, &[])?;
        let mut pieces = bytes.iter().map(|&b| decoder.push(b.into())).collect::<Result<Vec<_>>>()?;
        pieces.push(decoder.finish()?);
        Ok(pieces)
    };
    assert_eq!(pieces(b"a\xE2\x82", b"\xACb")?, ["€", "b", ""]);
    assert_eq!(pieces(b"a\xE2", b"\x82\xACb")?, ["", "€", "b", ""]);
    assert_eq!(pieces("a\u{FFFD}".as_bytes(), b"b")?, ["b", ""]);
    assert_eq!(pieces(b"a", b"\xE2b\xE2\x82")?, ["", "\u{FFFD}b", "", "", "\u{FFFD}"]);
    Ok(())
}

#[test]
fn texts_are_those_of_the_tokens() -> Result<()> {
    let tokenizer = CharTokenizer::from_text("abcdefghijklmnopq");
    let model = gpt(8, tokenizer.vocab_size());
    let options = GenerateOptions { temperature: 1.0, seed: 4, ..GenerateOptions::new(25) };
    let prompts = ["abc", "q"];
    let expected: Vec<String> = (0..2)
        .map(|row| {
            let options = GenerateOptions { seed: 4 + row as u64, ..options.clone() };
            tokenizer.decode(&tokens(&model, &tokenizer.encode(prompts[row]).unwrap(), &options)).unwrap()
        })
        .collect();
    let texts = |stop: &[&str]| -> Result<Vec<String>> {
        let options = GenerateOptions { stop: stop.iter().map(|s| (*s).to_owned()).collect(), ..options.clone() };
        let mut texts = vec![String::new(); 2];
        for round in model.generate_text(&prompts, &tokenizer, &options)? {
            texts.iter_mut().zip(round?).for_each(|(text, piece)| *text += &piece);
        }
        Ok(texts)
    };
    assert_eq!(texts(&[])?, expected);
    let stop = &expected[0][4..7];
    let cut = |text: &String| text[..text.find(stop).unwrap_or(text.len())].to_owned();
    assert_eq!(texts(&[stop])?, expected.iter().map(cut).collect::<Vec<_>>());
    assert!(texts(&[""]).unwrap_err().to_string().contains("empty stop string"));
    assert!(model.generate_text(&["z"], &tokenizer, &options).is_err());
    // Of a vocabulary smaller than the model's.
    let few = CharTokenizer::from_text("abc");
    let pieces = model.generate_text(&["ab"], &few, &options)?.collect::<Result<Vec<_>>>()?.concat().concat();
    assert_eq!(pieces.len(), 25);
    Ok(())
}

#[test]
fn a_model_of_another_dtype_generates_too() -> Result<()> {
    let model = gpt(8, 17);
    model.to(DType::F64)?;
    let with = GenerateOptions::greedy(12);
    let without = GenerateOptions { cache: false, ..with.clone() };
    assert_eq!(tokens(&model, &[1, 2], &with), tokens(&model, &[1, 2], &without));
    Ok(())
}

/// The logits after `seen`, all of it computed anew.
fn anew(model: &Gpt, seen: &[u32]) -> Result<Vec<f32>> {
    let whole: Vec<i64> = seen.iter().map(|&t| i64::from(t)).collect();
    let whole = Tensor::from_vec(whole, [1, seen.len()]);
    let logits = no_grad(|| model.eval(|| model.forward(&whole))).to_vec::<f32>()?;
    Ok(logits[logits.len() - model.config().vocab_size..].to_vec())
}

#[test]
fn the_captured_step_follows_the_model() -> Result<()> {
    let (model, other) = (gpt(32, 17), gpt(32, 17));
    let mut cache = KvCache::new(&model, 1)?;
    let mut seen: Vec<u32> = vec![3, 1, 4];
    model.prefill(&seen, 4, 0, &mut cache)?;
    let advance = |model: &Gpt, token: u32, seen: &mut Vec<u32>, cache: &mut KvCache| -> Result<()> {
        let found = model.advance(&[Some(token)], cache)?.to_vec::<f32>()?;
        seen.push(token);
        for (a, b) in found.iter().zip(anew(model, seen)?) {
            assert!((a - b).abs() < 1e-4, "{a} and {b} after {seen:?}");
        }
        assert_eq!(cache.filled(0), seen.len());
        Ok(())
    };
    let is_captured = |cache: &KvCache| matches!(cache.step, DecodeStep::Captured(..));
    assert!(!is_captured(&cache));
    for token in [1, 5, 9] {
        advance(&model, token, &mut seen, &mut cache)?;
        assert!(is_captured(&cache));
    }
    // A token that is none is refused, and the cache is as it was.
    let error = model.advance(&[Some(17)], &mut cache).unwrap_err().to_string();
    assert!(error.contains("17"), "{error}");
    advance(&model, 2, &mut seen, &mut cache)?;
    // The weights in another form, and frozen.
    model.prepack()?;
    advance(&model, 6, &mut seen, &mut cache)?;
    advance(&model, 5, &mut seen, &mut cache)?;
    assert!(is_captured(&cache));
    model.freeze("ln_f.*")?;
    advance(&model, 3, &mut seen, &mut cache)?;
    // Another model of the same sizes and weights.
    advance(&other, 5, &mut seen, &mut cache)?;
    advance(&model, 8, &mut seen, &mut cache)?;
    // What is asked for only after a further token is still what it was.
    let before = model.advance(&[Some(9)], &mut cache)?;
    model.advance(&[Some(7)], &mut cache)?;
    seen.push(9);
    for (a, b) in before.to_vec::<f32>()?.iter().zip(anew(&model, &seen)?) {
        assert!((a - b).abs() < 1e-4, "{a} and {b}");
    }
    // No value of a weight is part of the step.
    let mut cache = KvCache::new(&other, 1)?;
    let first = other.advance(&[Some(1)], &mut cache)?.to_vec::<f32>()?;
    other.ln_f.weight.set(&(other.ln_f.weight.tensor() * 2.0).detach())?;
    cache.clear(0);
    let second = other.advance(&[Some(1)], &mut cache)?.to_vec::<f32>()?;
    assert!(is_captured(&cache) && first != second);
    Ok(())
}

#[test]
fn looking_for_nan_records_each_step() -> Result<()> {
    let model = gpt(8, 17);
    let mut cache = KvCache::new(&model, 1)?;
    model.advance(&[Some(1)], &mut cache)?;
    let bad = model.ln_f.weight.tensor().shape().clone();
    model.ln_f.weight.set(&Tensor::full(bad, f64::NAN, DType::F32))?;
    let error = check_nan(|| model.advance(&[Some(1)], &mut cache)?.to_vec::<f32>().map_err(Into::into)).unwrap_err();
    let error: tapeflow_nn::Error = error;
    assert!(error.to_string().contains("NaN"), "{error}");
    Ok(())
}
