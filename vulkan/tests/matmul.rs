//! Products of matrices against the processor's, on the device as it is and in the form for a graphics processor.
//! Operands are small whole numbers, whose sums are exact in any order; one test has others and a bound.

mod support;

use std::time::Instant;

use tapeflow_core::driver::{Bindings, Driver as _, Kernel, Layout, Matmul, Memory, Plan, Shift};
use tapeflow_ir::DType;
use tapeflow_ir::half::{bf16_from_f32, f16_from_f32};
use tapeflow_vulkan::stage::Target;
use tapeflow_vulkan::{Driver, spirv, validation_messages};

/// The device's own target, and one that asks for shared memory and many invocations.
fn targets(driver: &Driver) -> [Target; 2] {
    let own = driver.target().clone();
    let graphics = Target { is_cpu: false, subgroup: 32, shared_bytes: 49152, workgroup: 256, ..own.clone() };
    [own, graphics]
}

/// Reproducible numbers.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }

    fn elements(&mut self, dtype: DType, count: usize, of: fn(usize) -> f64) -> Vec<u8> {
        let values: Vec<f64> = (0..count).map(|_| of(self.below(1 << 20))).collect();
        match dtype {
            DType::F16 => support::bytes(&values, |value| f16_from_f32(value as f32).to_le_bytes()),
            DType::BF16 => support::bytes(&values, |value| bf16_from_f32(value as f32).to_le_bytes()),
            DType::F32 => support::bytes(&values, |value| (value as f32).to_le_bytes()),
            _ => support::bytes(&values, f64::to_le_bytes),
        }
    }

    /// A layout over `extents` with the axes in any order, some of them repeated or in steps, and how many elements it
    /// reaches. `scalars` takes the start of a slice.
    fn layout(&mut self, extents: &[usize], plain: bool, scalars: &mut Vec<u64>) -> (Layout, usize) {
        let mut order: Vec<usize> = (0..extents.len()).rev().collect();
        let mut layout =
            Layout { offset: 0, shifts: [].into_iter().collect(), strides: extents.iter().map(|_| 0).collect() };
        let mut reach = 1;
        while !order.is_empty() {
            let axis = order.remove(if plain { 0 } else { self.below(order.len()) });
            if !plain && axis + 2 < extents.len() && self.below(3) == 0 {
                continue;
            }
            let step = if !plain && self.below(6) == 0 { 2 } else { 1 };
            layout.strides[axis] = (reach * step) as isize;
            reach *= extents[axis].max(1) * step;
        }
        if !plain {
            match self.below(4) {
                0 => layout.offset = self.below(9) as isize,
                1 => {
                    layout.shifts.push(Shift { slot: scalars.len(), stride: 1 + self.below(3) as isize });
                    scalars.push(self.below(5) as u64);
                }
                2 => {
                    // From the last row of the left operand, from the last line of the right one, backwards.
                    let axis = extents.len() - 2;
                    layout.offset = (extents[axis].max(1) - 1) as isize * layout.strides[axis];
                    layout.strides[axis] *= -1;
                }
                _ => {}
            }
        }
        (layout, reach + 16)
    }
}

fn small(number: usize) -> f64 {
    (number % 17) as f64 - 8.0
}

fn matmul(dtype: DType, batch: &[usize], [m, n, k]: [usize; 3], a: Layout, b: Layout) -> Matmul {
    let [m, n, k] = [m, n, k].map(|extent| [extent].into_iter().collect());
    Matmul { dtype, batch: batch.iter().copied().collect(), m, n, k, a, b }
}

/// The result in a form.
fn product(driver: &Driver, target: &Target, kernel: &Kernel, operands: &[Vec<u8>], scalars: &[u64]) -> Vec<u8> {
    let lowering = spirv::lower(kernel, target).unwrap_or_else(|error| panic!("{kernel:?}: {error}"));
    support::validate(&lowering);
    let lowered = driver.compile(lowering, 0).unwrap_or_else(|error| panic!("{kernel:?}: {error}"));
    let mut operands = operands.to_vec();
    support::run_lowered(driver, lowered, &mut operands, scalars)
        .unwrap_or_else(|error| panic!("{kernel:?}: {error:?}"));
    assert_eq!(validation_messages(), 0);
    operands.swap_remove(2)
}

/// Makes operands and compares both forms with the processor's result, bit by bit.
fn same(driver: &Driver, numbers: &mut Numbers, dtype: DType, batch: &[usize], extents: [usize; 3], plain: bool) {
    let [m, n, k] = extents;
    let mut scalars = Vec::new();
    let (a, a_reach) = numbers.layout(&[batch, &[m, k]].concat(), plain, &mut scalars);
    let (b, b_reach) = numbers.layout(&[batch, &[k, n]].concat(), plain, &mut scalars);
    let kernel = Kernel::Matmul(matmul(dtype, batch, extents, a, b));
    let count = batch.iter().product::<usize>() * m * n;
    let out = vec![0xee; count * dtype.size()];
    let operands = [numbers.elements(dtype, a_reach, small), numbers.elements(dtype, b_reach, small), out];
    let mut expected = operands.to_vec();
    support::run_on_cpu(&kernel, &mut expected, &scalars).unwrap_or_else(|error| panic!("{kernel:?}: {error}"));
    for target in targets(driver) {
        let found = product(driver, &target, &kernel, &operands, &scalars);
        let at = found.iter().zip(&expected[2]).position(|(a, b)| a != b);
        assert_eq!(at, None, "{kernel:?}, a processor: {}: first difference", target.is_cpu);
    }
}

#[test]
fn multiplies_plain_matrices() {
    let Some(driver) = support::driver() else { return };
    let mut numbers = Numbers(1);
    let shapes: [[usize; 3]; 22] = [
        [1, 1, 1],
        [0, 3, 4],
        [3, 0, 4],
        [3, 4, 0],
        [1, 1, 1000],
        [1, 300, 40],
        [300, 1, 40],
        [2, 40, 300],
        [40, 3, 200],
        [5, 7, 3],
        [8, 8, 8],
        [16, 16, 16],
        [16, 64, 32],
        [17, 33, 65],
        [64, 64, 64],
        [63, 65, 31],
        [64, 10, 100],
        [33, 128, 2],
        [100, 100, 100],
        [128, 96, 48],
        [7, 9, 20_000],
        [1, 2, 70_000],
    ];
    for [m, n, k] in shapes {
        for dtype in [DType::F32, DType::F64, DType::F16, DType::BF16] {
            same(driver, &mut numbers, dtype, &[], [m, n, k], true);
        }
    }
    for (batch, extents) in
        [(vec![3], [9, 10, 11]), (vec![2, 3], [4, 16, 8]), (vec![0], [2, 2, 2]), (vec![1, 5], [1, 6, 7])]
    {
        same(driver, &mut numbers, DType::F32, &batch, extents, true);
    }
}

#[test]
fn multiplies_in_any_layout() {
    let Some(driver) = support::driver() else { return };
    let mut numbers = Numbers(2);
    for case in 0..80 {
        let batch: Vec<usize> = (0..numbers.below(3)).map(|_| 1 + numbers.below(4)).collect();
        let mut extent = || match numbers.below(8) {
            0 => 1,
            1..4 => 1 + numbers.below(12),
            4..6 => 8 * (1 + numbers.below(6)),
            _ => 1 + numbers.below(70),
        };
        let extents = [extent(), extent(), extent()];
        let dtype = [DType::F64, DType::F32, DType::BF16, DType::F32, DType::F16][case % 5];
        same(driver, &mut numbers, dtype, &batch, extents, false);
    }
}

/// Row-major or transposed, as a model multiplies: activations by weights, and both gradients.
fn strides(rows: usize, cols: usize, transposed: bool) -> [isize; 3] {
    let [line, step] = if transposed { [1, rows] } else { [cols, 1] };
    [rows * cols, line, step].map(|stride| stride as isize)
}

fn layout(strides: [isize; 3]) -> Layout {
    Layout { offset: 0, shifts: [].into_iter().collect(), strides: strides.into_iter().collect() }
}

#[test]
fn multiplies_transposed_matrices() {
    let Some(driver) = support::driver() else { return };
    let mut numbers = Numbers(3);
    for [items, m, n, k] in [[1, 128, 64, 96], [6, 32, 48, 64], [2, 50, 34, 18], [1, 16, 256, 128], [3, 40, 40, 41]] {
        for [a, b] in [[false, false], [false, true], [true, false], [true, true]] {
            let kernel = matmul(DType::F32, &[items], [m, n, k], layout(strides(m, k, a)), layout(strides(k, n, b)));
            let kernel = Kernel::Matmul(kernel);
            let operands = [
                numbers.elements(DType::F32, items * m * k, small),
                numbers.elements(DType::F32, items * k * n, small),
                vec![0xee; items * m * n * 4],
            ];
            let mut expected = operands.to_vec();
            support::run_on_cpu(&kernel, &mut expected, &[]).unwrap_or_else(|error| panic!("{error}"));
            for target in targets(driver) {
                let found = product(driver, &target, &kernel, &operands, &[]);
                assert!(found == expected[2], "{kernel:?}, a processor: {}", target.is_cpu);
            }
        }
    }
}

#[test]
fn is_close_to_the_exact_sum_and_the_same_every_time() {
    let Some(driver) = support::driver() else { return };
    let mut numbers = Numbers(4);
    for [m, n, k] in [[20, 30, 2000], [64, 64, 512], [1, 5, 9000]] {
        for (dtype, epsilon) in [(DType::F32, f64::from(f32::EPSILON)), (DType::F64, f64::EPSILON)] {
            let (a, b) = (layout(strides(m, k, false)), layout(strides(k, n, false)));
            let kernel = Kernel::Matmul(matmul(dtype, &[1], [m, n, k], a, b));
            let real = |number: usize| number as f64 / 524_288.0 - 1.0;
            let operands = [
                numbers.elements(dtype, m * k, real),
                numbers.elements(dtype, k * n, real),
                vec![0xee; m * n * dtype.size()],
            ];
            let [a, b] = [&operands[0], &operands[1]].map(|bytes| floats(dtype, bytes));
            for target in targets(driver) {
                let found = product(driver, &target, &kernel, &operands, &[]);
                assert!(found == product(driver, &target, &kernel, &operands, &[]), "{kernel:?}: other bits");
                for (at, &value) in floats(dtype, &found).iter().enumerate() {
                    let terms = (0..k).map(|p| a[at / n * k + p] * b[p * n + at % n]);
                    let (exact, size) = terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()));
                    let error: f64 = value - exact;
                    assert!(error.abs() <= size * epsilon * (k as f64).sqrt(), "{kernel:?} at {at}: {error:e}");
                }
            }
        }
    }
}

fn floats(dtype: DType, bytes: &[u8]) -> Vec<f64> {
    match dtype {
        DType::F32 => support::values(bytes, |bytes| f64::from(f32::from_le_bytes(bytes))),
        _ => support::values(bytes, f64::from_le_bytes),
    }
}

#[test]
fn refuses_what_the_device_lacks() {
    let Some(driver) = support::driver() else { return };
    let mut target = driver.target().clone();
    target.has_f64 = false;
    let plain = |dtype, m| matmul(dtype, &[1], [m, 2, 2], layout(strides(m, 2, false)), layout(strides(2, 2, false)));
    for (kernel, word) in
        [(plain(DType::F64, 2), "f64"), (plain(DType::I32, 2), "i32"), (plain(DType::F32, 1 << 32), "beyond")]
    {
        let error = spirv::lower(&Kernel::Matmul(kernel), &target).expect_err("unsupported").to_string();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn the_validation_layer_has_nothing_to_say() {
    support::rerun_validated(&["is_close"]);
}

/// Prints GFLOP/s: `cargo test -p tapeflow-vulkan --test matmul -- --ignored --nocapture`.
#[test]
fn windows_of_images_are_operands() {
    let Some(driver) = support::driver() else { return };
    let dims = |extents: &[usize]| extents.iter().copied().collect();
    let strides = |strides: &[isize]| strides.iter().copied().collect();
    let mut numbers = Numbers(11);
    for dtype in [DType::F32, DType::F64] {
        for (images, channels, filters, side, kernel, step) in
            [(2, 3, 4, 7, 3, 1), (1, 1, 2, 9, 3, 2), (3, 2, 1, 5, 5, 1), (0, 2, 2, 4, 2, 1)]
        {
            let out = (side - kernel) / step + 1;
            let (row, plane) = (side as isize, (side * side) as isize);
            let size = (channels * kernel * kernel) as isize;
            // filter · window: rows are filters, columns places, the sum runs over channels and the window.
            let weights = Layout {
                offset: 0,
                shifts: [].into_iter().collect(),
                strides: strides(&[0, size, (kernel * kernel) as isize, kernel as isize, 1]),
            };
            let steps = step as isize;
            let windows = Layout {
                offset: 0,
                shifts: [Shift { slot: 0, stride: 1 }].into_iter().collect(),
                strides: strides(&[channels as isize * plane, plane, row, 1, steps * row, steps]),
            };
            let product = Matmul {
                dtype,
                batch: dims(&[images]),
                m: dims(&[filters]),
                n: dims(&[out, out]),
                k: dims(&[channels, kernel, kernel]),
                a: weights,
                b: windows,
            };
            let size = dtype.size();
            let operands = [
                numbers.elements(dtype, filters * channels * kernel * kernel, small),
                numbers.elements(dtype, images * channels * side * side + 2, small),
                vec![0xee; images * filters * out * out * size],
            ];
            let (mut found, mut expected) = (operands.to_vec(), operands.to_vec());
            support::run(driver, &Kernel::Matmul(product.clone()), &mut found, &[2])
                .unwrap_or_else(|error| panic!("{error:?}"));
            support::run_on_cpu(&Kernel::Matmul(product), &mut expected, &[2]).unwrap();
            assert!(found == expected, "{dtype} {images} {channels} {filters} {side} {kernel} {step}");
        }
    }
}

#[test]
#[ignore = "measures"]
fn speed() {
    let Some(driver) = support::driver() else { return };
    let mut numbers = Numbers(5);
    let shapes = [
        (1, [512, 512, 512], "NN"),
        (1, [512, 512, 512], "NT"),
        (1, [512, 512, 512], "TN"),
        (1, [1024, 1024, 1024], "NN"),
        (1, [768, 512, 128], "NN"),
        (1, [768, 128, 512], "NT"),
        (1, [128, 512, 768], "TN"),
        (48, [64, 64, 32], "NN"),
        (48, [64, 64, 32], "NT"),
        (48, [64, 32, 64], "NN"),
        (48, [64, 32, 64], "TN"),
        (1, [1, 4096, 1024], "NN"),
        (1, [1, 4096, 1024], "NT"),
    ];
    for (items, [m, n, k], form) in shapes {
        let (a, b) = (strides(m, k, form == "TN"), strides(k, n, form == "NT"));
        let kernel = Kernel::Matmul(matmul(DType::F32, &[items], [m, n, k], layout(a), layout(b)));
        let lowered = driver.lower(&kernel).unwrap_or_else(|error| panic!("{error}"));
        let arena_bytes = lowered.partial_bytes();
        let steps = [support::step(lowered, 3)];
        let plan = Plan { steps: &steps, arena_bytes, inputs: 3, outputs: 0, scalars: 0 };
        let program = driver.record(&plan).unwrap_or_else(|error| panic!("{error}"));
        let allocate = |bytes| driver.allocate(bytes, "an operand").unwrap_or_else(|error| panic!("{error}"));
        let arena = allocate(arena_bytes);
        let operands = [m * k, k * n, m * n].map(|count| allocate(items * count * 4));
        for (operand, count) in operands.iter().zip([m * k, k * n]) {
            let bytes = numbers.elements(DType::F32, items * count, small);
            operand.write(&bytes).unwrap_or_else(|error| panic!("{error}"));
        }
        let inputs: Vec<&std::sync::Arc<dyn Memory>> = operands.iter().collect();
        let bindings = Bindings { arena: &arena, inputs: &inputs, outputs: &[], scalars: &[] };
        let mut times: Vec<f64> = (0..8)
            .map(|_| {
                let start = Instant::now();
                let run = program.submit(&bindings).unwrap_or_else(|error| panic!("{error:?}"));
                run.wait().unwrap_or_else(|error| panic!("{error:?}"));
                start.elapsed().as_secs_f64()
            })
            .collect();
        let first = times.remove(0);
        let best = times.iter().copied().fold(f64::INFINITY, f64::min);
        let work = 2.0 * (items * m * n * k) as f64;
        println!(
            "{items:>3}x{m}x{n}x{k} {form}: first {:4.0} ms, best {:7.3} ms, {:5.1} GFLOP/s",
            first * 1e3,
            best * 1e3,
            work / best / 1e9
        );
    }
}
