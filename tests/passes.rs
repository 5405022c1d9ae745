//! What each pass makes of one small model, as text. A change here is to be read: it says what became of a training
//! step.

use expect_test::{Expect, expect};
use tapeflow::prelude::*;
use tapeflow::{__test::dumped, Result};

#[derive(Module)]
#[module(forward = |x| out(hidden(x).tanh()))]
struct Net {
    hidden: Linear,
    out: Linear,
}

fn net() -> Net {
    let layer = |inputs: usize, outputs: usize| {
        let values = (0..inputs * outputs).map(|i| i as f32 * 0.1).collect();
        Linear::from_tensors(Tensor::from_vec(values, [outputs, inputs]), Some(Tensor::zeros([outputs], DType::F32)))
    };
    Net { hidden: layer(3, 5).unwrap(), out: layer(5, 2).unwrap() }
}

/// The part of a dump that one pass wrote.
fn pass<'d>(dump: &'d str, name: &str) -> &'d str {
    let begin = dump.find(&format!("== {name}\n")).unwrap_or_else(|| panic!("no pass {name} in:\n{dump}"));
    let text = &dump[begin..];
    text[3..].find("== ").map_or(text, |end| &text[..end + 3])
}

fn check(dump: &str, expected: [(&str, Expect); 5]) {
    for (name, expected) in expected {
        expected.assert_eq(pass(dump, name));
    }
}

#[test]
fn the_passes_of_a_training_step() -> Result<()> {
    let net = net();
    let x = Tensor::from_vec((0..12).map(|i| i as f32).collect(), [4, 3]);
    let y = Tensor::from_vec(vec![1f32; 8], [4, 2]);
    let mut sgd = Sgd::new(&net).learning_rate(0.1);
    let (done, dump) = dumped(|| {
        let loss = net.forward(&x).mse_loss(&y);
        sgd.step(loss.backward()?)
    });
    done?;
    check(
        &dump,
        [
            (
                "record",
                expect![[r#"
        == record
        %4: f32 (4, 3) = input 4
        %3: f32 (5, 3) = input 3
        %5: f32 (3, 5) = permute [1, 0] %3
        %6: f32 (4, 5) = matmul %4 %5
        %2: f32 (5,) = input 2
        %7: f32 (4, 5) = add %6 %2
        %8: f32 (4, 5) = tanh %7
        %1: f32 (2, 5) = input 1
        %9: f32 (5, 2) = permute [1, 0] %1
        %10: f32 (4, 2) = matmul %8 %9
        %0: f32 (2,) = input 0
        %11: f32 (4, 2) = add %10 %0
        %12: f32 (4, 2) = input 5
        %13: f32 (4, 2) = sub %11 %12
        %14: f32 (4, 2) = square %13
        %15: f32 () = sum [0, 1] %14
        %16: f32 () = scalar
        %17: f32 () = div %15 %16 *
        %18: f32 () = gradient %17 %0 %1 %2 %3
        %19: f32 (5, 3) = gradient of 3 %18
        %20: f32 () = scalar
        %21: f32 () = scalar
        %22: f32 (5, 3) = plain %3 %19 %20 %21 *
        %23: f32 (5,) = gradient of 2 %18
        %24: f32 (5,) = plain %2 %23 %20 %21 *
        %25: f32 (2, 5) = gradient of 1 %18
        %26: f32 (2, 5) = plain %1 %25 %20 %21 *
        %27: f32 (2,) = gradient of 0 %18
        %28: f32 (2,) = plain %0 %27 %20 %21 *
    "#]],
            ),
            (
                "differentiate",
                expect![[r#"
                    == differentiate
                    %4: f32 (4, 3) = input 4
                    %3: f32 (5, 3) = input 3
                    %5: f32 (3, 5) = permute [1, 0] %3
                    %6: f32 (4, 5) = matmul %4 %5
                    %2: f32 (5,) = input 2
                    %7: f32 (4, 5) = add %6 %2
                    %8: f32 (4, 5) = tanh %7
                    %1: f32 (2, 5) = input 1
                    %9: f32 (5, 2) = permute [1, 0] %1
                    %10: f32 (4, 2) = matmul %8 %9
                    %0: f32 (2,) = input 0
                    %11: f32 (4, 2) = add %10 %0
                    %12: f32 (4, 2) = input 5
                    %13: f32 (4, 2) = sub %11 %12
                    %14: f32 (4, 2) = square %13
                    %15: f32 () = sum [0, 1] %14
                    %16: f32 () = scalar
                    %17: f32 () = div %15 %16 *
                    %29: f32 () = constant 1
                    %30: f32 () = vjp %16 %29
                    %31: f32 (1, 1) = reshape %30
                    %32: f32 (4, 2) = expand %31
                    %33: f32 (4, 2) = vjp %13 %32
                    %34: f32 (4, 2) = vjp %33
                    %35: f32 (4, 2) = vjp %34
                    %37: f32 (2, 5) = permute [1, 0] %9
                    %38: f32 (4, 5) = matmul %35 %37
                    %43: f32 (4, 5) = vjp %7 %38
                    %44: f32 (4, 5) = vjp %43
                    %46: f32 (5, 4) = permute [1, 0] %44
                    %47: f32 (5, 3) = matmul %46 %4
                    %48: f32 (3, 5) = permute [1, 0] %47
                    %49: f32 (5, 3) = permute [1, 0] %48
                    %20: f32 () = scalar
                    %21: f32 () = scalar
                    %50: f32 (5, 3) = plain %3 %49 %20 %21 *
                    %45: f32 (5,) = sum [0] %44
                    %51: f32 (5,) = plain %2 %45 %20 %21 *
                    %39: f32 (2, 4) = permute [1, 0] %35
                    %40: f32 (2, 5) = matmul %39 %8
                    %41: f32 (5, 2) = permute [1, 0] %40
                    %42: f32 (2, 5) = permute [1, 0] %41
                    %52: f32 (2, 5) = plain %1 %42 %20 %21 *
                    %36: f32 (2,) = sum [0] %35
                    %53: f32 (2,) = plain %0 %36 %20 %21 *
                "#]],
            ),
            (
                "fuse",
                expect![[r#"
                    == fuse
                    0: %6 = Matmul %4 %3 // matmul
                        then group [4, 5] (%6[5, 1]+0, %2[0, 1]+0) -> %8 Store([5, 1]+0)
                        fn(f32 lane, f32 lane)
                        %0: f32 lane = input 0
                        %1: f32 lane = input 1
                        %2: f32 lane = add %0, %1
                        %3: f32 lane = tanh %2
                        return %3
                    1: %10 = Matmul %8 %1 // matmul
                        then group [4, 2] (%10[2, 1]+0, %0[0, 1]+0, %12[2, 1]+0, scalar 0) -> %15 ReduceTrailing(Sum, 2), %35 Store([2, 1]+0)
                        fn(f32 lane, f32 lane, f32 lane, f32 lane)
                        %0: f32 lane = input 0
                        %1: f32 lane = input 1
                        %2: f32 lane = input 2
                        %3: f32 lane = input 3
                        %4: f32 lane = add %0, %1
                        %5: f32 lane = sub %4, %2
                        %6: f32 lane = mul %5, %5
                        %7: f32 row = const 1.0
                        %8: f32 lane = div %7, %3
                        %9: f32 lane = mul %8, %5
                        %10: f32 lane = add %9, %9
                        return %6, %10
                        then group [4, 2] (%35[2, 1]+0) -> %36 ReduceLeading(Sum, 1)
                        fn(f32 lane)
                        %0: f32 lane = input 0
                        return %0
                    2: group [] (%15[]+0, scalar 0) -> %17 Store([]+0) // div
                        fn(f32 lane, f32 lane)
                        %0: f32 lane = input 0
                        %1: f32 lane = input 1
                        %2: f32 lane = div %0, %1
                        return %2
                    3: %38 = Matmul %35 %1 // matmul
                        then group [4, 5] (%6[5, 1]+0, %2[0, 1]+0, %38[5, 1]+0) -> %44 Store([5, 1]+0)
                        fn(f32 lane, f32 lane, f32 lane)
                        %0: f32 lane = input 0
                        %1: f32 lane = input 1
                        %2: f32 lane = input 2
                        %3: f32 lane = add %0, %1
                        %4: f32 lane = tanh %3
                        %5: f32 lane = mul %4, %4
                        %6: f32 row = const 1.0
                        %7: f32 lane = sub %6, %5
                        %8: f32 lane = mul %2, %7
                        return %8
                        then group [4, 5] (%44[5, 1]+0) -> %45 ReduceLeading(Sum, 1)
                        fn(f32 lane)
                        %0: f32 lane = input 0
                        return %0
                    4: %40 = Matmul %35 %8 // matmul
                    5: %47 = Matmul %44 %4 // matmul
                    6: group [5, 3] (%3[3, 1]+0, %47[3, 1]+0, scalar 1, scalar 2) -> %50 Store([3, 1]+0) // plain
                    6: group [5] (%2[1]+0, %45[1]+0, scalar 1, scalar 2) -> %51 Store([1]+0) // plain
                    6: group [2, 5] (%1[5, 1]+0, %40[5, 1]+0, scalar 1, scalar 2) -> %52 Store([5, 1]+0) // plain
                    6: group [2] (%0[1]+0, %36[1]+0, scalar 1, scalar 2) -> %53 Store([1]+0) // plain
                        fn(f32 lane, f32 lane, f32 lane, f32 lane)
                        %0: f32 lane = input 0
                        %1: f32 lane = input 1
                        %2: f32 lane = input 2
                        %3: f32 lane = input 3
                        %4: f32 lane = mul %2, %0
                        %5: f32 lane = add %1, %4
                        %6: f32 lane = mul %3, %5
                        %7: f32 lane = sub %0, %6
                        return %7
                "#]],
            ),
            (
                "plan",
                expect![[r#"
                    == plan
                    arena 576 bytes
                    %0: 8 bytes at Input(0) during 1..=6
                    %1: 40 bytes at Input(1) during 1..=6
                    %2: 20 bytes at Input(2) during 0..=6
                    %3: 60 bytes at Input(3) during 0..=6
                    %4: 48 bytes at Input(4) during 0..=5
                    %6: 80 bytes at Arena(0) during 0..=3
                    %8: 80 bytes at Arena(128) during 0..=4
                    %10: 32 bytes at Arena(384) during 1..=1
                    %12: 32 bytes at Input(5) during 1..=1
                    %15: 4 bytes at Arena(256) during 1..=2
                    %17: 4 bytes at Output(0) during 2..=2
                    %35: 32 bytes at Arena(384) during 1..=4
                    %36: 8 bytes at Arena(512) during 1..=6
                    %38: 80 bytes at Arena(256) during 3..=3
                    %40: 40 bytes at Arena(64) during 4..=6
                    %44: 80 bytes at Arena(256) during 3..=5
                    %45: 20 bytes at Arena(448) during 3..=6
                    %47: 60 bytes at Arena(0) during 5..=6
                    %50: 60 bytes at Input(3) during 6..=6
                    %51: 20 bytes at Input(2) during 6..=6
                    %52: 40 bytes at Input(1) during 6..=6
                    %53: 8 bytes at Input(0) during 6..=6
                "#]],
            ),
            (
                "schedule",
                expect![[r#"
                    == schedule
                    arena 576 bytes
                    0: matmul [Input(4), Input(3), Arena(0), Arena(0), Input(2), Arena(128)] waits for 0, then [1, 3, 4, 5, 6]
                    1: matmul [Arena(128), Input(1), Arena(384), Arena(384), Input(0), Input(5), Arena(256), Arena(384), Arena(384), Arena(512)] waits for 1, then [2, 3, 4, 6]
                    2: div [Arena(256), Output(0)] waits for 1, then [3]
                    3: matmul [Arena(384), Input(1), Arena(256), Arena(0), Input(2), Arena(256), Arena(256), Arena(256), Arena(448)] waits for 3, then [4, 5, 6]
                    4: matmul [Arena(384), Arena(128), Arena(64)] waits for 3, then [6]
                    5: matmul [Arena(256), Input(4), Arena(0)] waits for 2, then [6]
                    6: plain [Input(3), Arena(0), Input(3), Input(2), Arena(448), Input(2), Input(1), Arena(64), Input(1), Input(0), Arena(512), Input(0)] waits for 5, then []
                "#]],
            ),
        ],
    );
    // The second step is the first one's program: no pass runs.
    let (done, dump) = dumped(|| {
        let loss = net.forward(&x).mse_loss(&y);
        sgd.step(loss.backward()?)
    });
    done?;
    assert_eq!(dump, "");
    Ok(())
}

#[test]
fn the_passes_of_a_row_kernel_and_a_lookup() -> Result<()> {
    let table = Tensor::from_vec((0..12).map(|i| i as f32).collect(), [4, 3]);
    let index = Tensor::from_vec(vec![3i64, 0], [2]);
    let (read, dump) = dumped(|| (table.embedding(&index).softmax(-1) * 2.0).t().to_vec::<f32>());
    assert_eq!(read?.len(), 6);
    check(
        &dump,
        [
            (
                "record",
                expect![[r#"
        == record
        %0: f32 (4, 3) = input 0
        %1: i64 (2,) = input 1
        %2: f32 (2, 3) = index_select %0 %1 *
        %3: f32 (2, 3) = softmax %2
        %4: f32 () = scalar
        %5: f32 (2, 3) = mul %3 %4 *
        %6: f32 (3, 2) = permute [1, 0] %5 *
    "#]],
            ),
            (
                "differentiate",
                expect![[r#"
        == differentiate
        %0: f32 (4, 3) = input 0
        %1: i64 (2,) = input 1
        %2: f32 (2, 3) = index_select %0 %1 *
        %3: f32 (2, 3) = softmax %2
        %4: f32 () = scalar
        %5: f32 (2, 3) = mul %3 %4 *
        %6: f32 (3, 2) = permute [1, 0] %5 *
    "#]],
            ),
            (
                "fuse",
                expect![[r#"
                    == fuse
                    0: %2 = Gather %0 %1 // index_select
                    1: group [2, 3] (%2[3, 1]+0, scalar 0) -> %5 Store([3, 1]+0) // mul
                        fn(f32 lane, f32 lane)
                        %0: f32 lane = input 0
                        %1: f32 row = reduce_max %0
                        %2: f32 row = detach %1
                        %3: f32 lane = sub %0, %2
                        %4: f32 lane = exp %3
                        %5: f32 row = reduce_sum %4
                        %6: f32 lane = div %4, %5
                        %7: f32 lane = input 1
                        %8: f32 lane = mul %6, %7
                        return %8
                    2: group [3, 2] (%5[1, 3]+0) -> %6 Store([2, 1]+0) // permute [1, 0]
                        fn(f32 lane)
                        %0: f32 lane = input 0
                        return %0
                "#]],
            ),
            (
                "plan",
                expect![[r#"
                == plan
                arena 0 bytes
                %0: 48 bytes at Input(0) during 0..=0
                %1: 16 bytes at Input(1) during 0..=0
                %2: 24 bytes at Output(0) during 0..=1
                %5: 24 bytes at Output(1) during 1..=2
                %6: 24 bytes at Output(2) during 2..=2
            "#]],
            ),
            (
                "schedule",
                expect![[r#"
        == schedule
        arena 0 bytes
        0: index_select [Input(0), Input(1), Output(0)] waits for 0, then [1]
        1: mul [Output(0), Output(1)] waits for 1, then [2]
        2: permute [1, 0] [Output(1), Output(2)] waits for 1, then []
    "#]],
            ),
        ],
    );
    Ok(())
}

#[test]
fn the_updates_of_all_parameters_are_one_step() -> Result<()> {
    let updates = |clip: bool, model: &dyn Fn() -> Gpt| -> Result<Vec<usize>> {
        let model = model();
        let mut optimizer = AdamW::new(&model).group_where(|_, shape| shape.len() < 2, |g| g.weight_decay(0.0));
        let tokens = Tensor::from_vec((0..18).map(|i| i % 7).collect::<Vec<i64>>(), [2, 9]);
        let (done, dump) = dumped(|| {
            let loss = model.loss(&tokens.slice(1, ..8), &tokens.slice(1, 1..));
            let mut gradients = loss.backward()?;
            if clip {
                gradients = gradients.clip_norm(1.0).0;
            }
            optimizer.step(gradients)
        });
        done?;
        // The optimizer's state is made by programs of its own before.
        let text = &dump[dump.rfind("== schedule").unwrap_or_default()..];
        let steps = text.lines().filter(|line| line.split(' ').nth(1) == Some("adam"));
        Ok(steps.map(|line| line.matches("Input(").count()).filter(|&n| n > 0).collect())
    };
    let config = GptConfig { block_size: 8, vocab_size: 7, n_layer: 2, n_head: 2, n_embd: 8, dropout: 0.0, bias: true };
    let model = || Gpt::new(&config, &Generator::new(1)).unwrap();
    let parameters = model().named_parameters().len();
    for clip in [false, true] {
        // Of each parameter: itself and its two moments, read and then written in place.
        assert_eq!(updates(clip, &model)?, [6 * parameters]);
    }
    Ok(())
}

/// What is normalised over items and pixels is read once for its statistics and once to be normalised; backward reads
/// it once for the cotangent of the result and once for all sums.
#[test]
fn a_batch_norm_reads_what_it_must() -> Result<()> {
    let norm = BatchNorm2d::new(3)?;
    let x = Parameter::new(Tensor::randn([4, 3, 8, 8]))?;
    let (done, dump) = dumped(|| {
        let y = norm.train(|| norm.forward(&x.tensor())).relu();
        Sgd::new(&norm).step((&y * &y).mean().backward()?)
    });
    done?;
    let fuse = pass(&dump[dump.rfind("== fuse").unwrap_or_default()..], "fuse");
    let groups: Vec<&str> = fuse.lines().filter(|line| line.contains(": group")).collect();
    let whole = |line: &&&str| line.contains("192, 64, ");
    assert_eq!(groups.iter().filter(whole).count(), 4, "{fuse}");
    assert_eq!(groups.iter().filter(|line| line.contains("run_sum")).count(), 1, "{fuse}");
    Ok(())
}
