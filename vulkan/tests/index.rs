//! The kernels that read indices against the processor's: picking, checking, adding into rows, indices of extremes.
//! Results are compared bit by bit, on the device as it is and in the form for a graphics processor.

mod support;

use tapeflow_core::driver::{
    ArgReduce, ArgSort, CheckIndex, CumSum, DriverError, Gather, Kernel, RunError, ScatterAdd,
};
use tapeflow_ir::DType;
use tapeflow_vulkan::stage::Target;
use tapeflow_vulkan::{Driver, spirv, validation_messages};

/// The device's own target, and one that asks for shared memory and many invocations.
fn targets(driver: &Driver) -> [Target; 2] {
    let own = driver.target().clone();
    let graphics = Target { is_cpu: false, subgroup: 32, shared_bytes: 49152, workgroup: 256, ..own.clone() };
    [own, graphics]
}

/// Reproducible bits.
struct Bits(u64);

impl Bits {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Elements of a dtype; floats with few distinct values of very different sizes, a NaN now and then if wanted.
    fn elements(&mut self, dtype: DType, count: usize, nan: bool) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..count {
            let bits = self.next() >> 16;
            let small = (bits % 41) as f64 - 20.0;
            let float = match bits >> 20 & 63 {
                0 if nan => f64::NAN,
                1 => -0.0,
                2 => 0.0,
                3 => small * 1e7,
                4 => small * 1e-7,
                _ => small / 3.0,
            };
            match dtype {
                DType::Bool => bytes.push(bits as u8 & 1),
                DType::U8 => bytes.push(bits as u8),
                DType::I32 => bytes.extend(((bits % 41) as i32 - 20).to_le_bytes()),
                DType::U32 => bytes.extend((bits as u32).to_le_bytes()),
                DType::I64 => bytes.extend((self.next() as i64 >> 3).to_le_bytes()),
                DType::F16 | DType::BF16 => bytes.extend((bits as u16).to_le_bytes()),
                DType::F32 => bytes.extend((float as f32).to_le_bytes()),
                DType::F64 => bytes.extend(float.to_le_bytes()),
            }
        }
        bytes
    }

    /// Indices of an axis, negative ones among them where the dtype has any.
    fn indices(&mut self, dtype: DType, extent: usize, count: usize) -> Vec<u8> {
        let list: Vec<i64> = (0..count)
            .map(|_| {
                let place = (self.next() >> 16) as i64 % extent.max(1) as i64;
                let negative = dtype != DType::U32 && self.next() & 4 == 0;
                if negative { place - extent as i64 } else { place }
            })
            .collect();
        index_bytes(dtype, &list)
    }
}

fn index_bytes(dtype: DType, list: &[i64]) -> Vec<u8> {
    match dtype {
        DType::I64 => support::bytes(list, i64::to_le_bytes),
        _ => support::bytes(list, |index| (index as u32).to_le_bytes()),
    }
}

/// Runs a kernel in every form and compares operand `out` with the processor's.
#[track_caller]
fn same(driver: &Driver, kernel: &Kernel, operands: &[Vec<u8>], out: usize) {
    let mut expected = operands.to_vec();
    support::run_on_cpu(kernel, &mut expected, &[]).unwrap_or_else(|error| panic!("{kernel:?}: {error}"));
    for target in targets(driver) {
        let lowering = spirv::lower(kernel, &target).unwrap_or_else(|error| panic!("{kernel:?}: {error}"));
        support::validate(&lowering);
        let lowered = driver.compile(lowering, 0).unwrap_or_else(|error| panic!("{kernel:?}: {error}"));
        let mut found = operands.to_vec();
        support::run_lowered(driver, lowered, &mut found, &[]).unwrap_or_else(|error| panic!("{kernel:?}: {error:?}"));
        let at = found[out].iter().zip(&expected[out]).position(|(a, b)| a != b);
        assert_eq!(at, None, "{kernel:?}, a processor: {}: first difference", target.is_cpu);
    }
    assert_eq!(validation_messages(), 0);
}

/// The error of a kernel that must fail, in every form.
fn refused(driver: &Driver, kernel: &Kernel, operands: &[Vec<u8>], extent: usize) -> Vec<DriverError> {
    let run = |target: &Target| {
        let lowering = spirv::lower(kernel, target).unwrap_or_else(|error| panic!("{kernel:?}: {error}"));
        support::validate(&lowering);
        let lowered = driver.compile(lowering, extent).unwrap_or_else(|error| panic!("{kernel:?}: {error}"));
        let fault = support::run_lowered(driver, lowered, &mut operands.to_vec(), &[]);
        fault.expect_err("an index is out of range").error
    };
    targets(driver).iter().map(run).collect()
}

const INDEX_DTYPES: [DType; 3] = [DType::I32, DType::U32, DType::I64];

/// (outer, extent, inner, picks): with 0 and 1, odd sizes, and more than one workgroup.
const SHAPES: [[usize; 4]; 11] = [
    [1, 7, 1, 5],
    [1, 1, 1, 1],
    [0, 3, 2, 4],
    [2, 3, 0, 4],
    [2, 3, 5, 0],
    [1, 0, 3, 0],
    [3, 11, 5, 17],
    [2, 5, 8, 300],
    [1, 1000, 24, 100],
    [4, 9, 33, 12],
    [1, 50, 128, 200],
];

fn pick(shape: [usize; 4], dtype: DType, index_dtype: DType, along: bool) -> Gather {
    let [outer, extent, inner, picks] = shape;
    Gather { dtype, index_dtype, outer, extent, inner, picks, along }
}

/// How many indices there are, and elements on the side of the axis and on that of the picks.
fn counts(gather: &Gather) -> [usize; 3] {
    let Gather { outer, extent, inner, picks, along, .. } = *gather;
    [if along { outer * picks * inner } else { picks }, outer * extent * inner, outer * picks * inner]
}

#[test]
fn gathers_as_the_processor_does() {
    let Some(driver) = support::driver() else { return };
    let mut bits = Bits(7);
    for (number, &shape) in SHAPES.iter().enumerate() {
        for along in [false, true] {
            for dtype in [DType::ALL[number % 9], DType::ALL[(number + 4) % 9], DType::F32] {
                let gather = pick(shape, dtype, INDEX_DTYPES[number % 3], along);
                let [list, data, out] = counts(&gather);
                let operands = [
                    bits.elements(dtype, data, true),
                    bits.indices(gather.index_dtype, gather.extent, list),
                    vec![0xee; out * dtype.size()],
                ];
                same(driver, &Kernel::Gather(gather), &operands, 2);
            }
        }
    }
}

#[test]
fn adds_into_rows_as_the_processor_does() {
    let Some(driver) = support::driver() else { return };
    let mut bits = Bits(11);
    let dtypes = [DType::F32, DType::F64, DType::I32, DType::I64, DType::U8, DType::U32];
    for (number, &shape) in SHAPES.iter().enumerate() {
        for along in [false, true] {
            for dtype in [dtypes[number % 6], DType::F32] {
                let gather = pick(shape, dtype, INDEX_DTYPES[(number + 1) % 3], along);
                let [list, out, data] = counts(&gather);
                let operands = [
                    bits.elements(dtype, data, false),
                    bits.indices(gather.index_dtype, gather.extent, list),
                    vec![0xee; out * dtype.size()],
                ];
                same(driver, &Kernel::ScatterAdd(ScatterAdd(gather)), &operands, 2);
            }
        }
    }
}

#[test]
fn adds_long_lists_in_their_order() {
    let Some(driver) = support::driver() else { return };
    let mut bits = Bits(13);
    // An embedding's gradient; all picks of one row, in more than one block of the list; a list of single numbers.
    for shape in [[1, 5000, 32, 3000], [1, 1, 16, 20_000], [2, 3, 5, 9000], [1, 400, 1, 17_000]] {
        let gather = pick(shape, DType::F32, DType::I64, false);
        let [list, out, data] = counts(&gather);
        let operands = [
            bits.elements(DType::F32, data, false),
            bits.indices(DType::I64, gather.extent, list),
            vec![0xee; out * 4],
        ];
        same(driver, &Kernel::ScatterAdd(ScatterAdd(gather)), &operands, 2);
    }
}

#[test]
fn adds_into_columns_in_more_turns_than_an_invocation_of_a_processor_has() {
    let Some(driver) = support::driver() else { return };
    let mut bits = Bits(14);
    let gather = pick([1, 3, 2, 70_000], DType::F32, DType::I32, true);
    let [list, out, data] = counts(&gather);
    let mut found = [bits.elements(DType::F32, data, false), bits.indices(DType::I32, 3, list), vec![0xee; out * 4]];
    let mut expected = found.clone();
    let kernel = Kernel::ScatterAdd(ScatterAdd(gather));
    support::run_on_cpu(&kernel, &mut expected, &[]).unwrap_or_else(|error| panic!("{error}"));
    support::run(driver, &kernel, &mut found, &[]).unwrap_or_else(|error| panic!("{error:?}"));
    assert!(found == expected);
}

#[test]
fn finds_the_first_extreme() {
    let Some(driver) = support::driver() else { return };
    let mut bits = Bits(17);
    for dtype in DType::ALL.into_iter().filter(|dtype| !dtype.is_half()) {
        for (rows, length) in [(0, 3), (1, 1), (1, 7), (5, 1), (3, 100), (200, 33), (2, 1000), (70, 300), (1, 5000)] {
            for max in [false, true] {
                for nan in [false, true] {
                    let kernel = Kernel::ArgReduce(ArgReduce { dtype, max, rows, length });
                    let operands = [bits.elements(dtype, rows * length, nan), vec![0xee; rows * 8]];
                    same(driver, &kernel, &operands, 1);
                    if !dtype.is_float() {
                        break;
                    }
                }
            }
        }
    }
    // Rows longer than the turns of a processor's invocation, by one and by all of a workgroup.
    for (rows, length) in [(1, 700_000), (100, 61_000)] {
        let kernel = Kernel::ArgReduce(ArgReduce { dtype: DType::F32, max: true, rows, length });
        let mut data = vec![0; rows * length * 4];
        for (row, row_bytes) in data.chunks_mut(length * 4).enumerate() {
            let last = length - 1 - row;
            row_bytes[last * 4..][..4].copy_from_slice(&1.5_f32.to_le_bytes());
        }
        same(driver, &kernel, &[data, vec![0xee; rows * 8]], 1);
    }
}

#[test]
fn orders_and_sums_rows() {
    let Some(driver) = support::driver() else { return };
    let mut bits = Bits(23);
    for dtype in DType::ALL.into_iter().filter(|dtype| !dtype.is_half()) {
        for (rows, length) in [(0, 3), (2, 0), (1, 1), (1, 7), (5, 1), (3, 100), (200, 33), (2, 1000)] {
            for nan in [false, true] {
                let data = bits.elements(dtype, rows * length, nan && dtype.is_float());
                for descending in [false, true] {
                    let kernel = Kernel::ArgSort(ArgSort { dtype, descending, rows, length });
                    same(driver, &kernel, &[data.clone(), vec![0xee; rows * length * 8]], 1);
                }
                if dtype != DType::Bool {
                    let kernel = Kernel::CumSum(CumSum { dtype, rows, length });
                    // What a NaN is added to is a NaN of some bits.
                    let data = bits.elements(dtype, rows * length, false);
                    same(driver, &kernel, &[data.clone(), vec![0xee; data.len()]], 1);
                }
            }
        }
    }
}

/// What a workgroup takes is a specialization constant, not part of the code: with twice as much, half as many do
/// everything.
#[test]
fn shares_are_specialization_constants() {
    let Some(driver) = support::driver() else { return };
    let (rows, length) = (900, 33);
    let kernel = Kernel::ArgSort(ArgSort { dtype: DType::F32, descending: false, rows, length });
    let operands = [Bits(29).elements(DType::F32, rows * length, false), vec![0xee; rows * length * 8]];
    let mut expected = operands.to_vec();
    support::run_on_cpu(&kernel, &mut expected, &[]).unwrap();
    let shares = |factor: u32| {
        let mut lowering = spirv::lower(&kernel, driver.target()).unwrap();
        for stage in &mut lowering.stages {
            let mut shader = (*stage.shader).clone();
            let share = shader.constants.iter_mut().find(|(id, _)| *id == 3).expect("a share");
            share.1 *= factor;
            stage.shader = shader.into();
            stage.groups = stage.groups.div_ceil(factor.into());
        }
        let mut found = operands.to_vec();
        support::run_lowered(driver, driver.compile(lowering, 0).unwrap(), &mut found, &[]).unwrap();
        found
    };
    assert!(shares(1)[1] == expected[1] && shares(2)[1] == expected[1]);
}

#[test]
fn accepts_indices_within_the_axis() {
    let Some(driver) = support::driver() else { return };
    let mut bits = Bits(19);
    for dtype in INDEX_DTYPES {
        for (count, extent) in [(0, 5), (1, 1), (1000, 7), (70_000, 300)] {
            let kernel = Kernel::CheckIndex(CheckIndex { dtype, count, extent });
            same(driver, &kernel, &[bits.indices(dtype, extent, count)], 0);
        }
    }
}

#[test]
fn reports_an_index_beyond_the_axis() {
    let Some(driver) = support::driver() else { return };
    let reported = |index: i64, extent| DriverError::Run(RunError::Index { index, extent });
    let far = i64::from(i32::MAX);
    let cases = [
        (DType::I32, 7, 5, 5),
        (DType::I32, 7, -6, -6),
        (DType::U32, 7, 9, 9),
        (DType::U32, 7, i64::from(u32::MAX), far),
        (DType::I64, 7, 1 << 40, far),
        (DType::I64, 7, i64::MIN, i64::from(i32::MIN)),
    ];
    for (dtype, count, index, expected) in cases {
        let extent = 5;
        let mut list = vec![1; count];
        list[count - 2] = index;
        let list = index_bytes(dtype, &list);
        let check = Kernel::CheckIndex(CheckIndex { dtype, count, extent });
        let mut errors = refused(driver, &check, std::slice::from_ref(&list), extent);
        for picks in [count, 200] {
            let indices = index_bytes(dtype, &[vec![0; picks - 2], vec![index, 0]].concat());
            for inner in [1, 40] {
                let gather =
                    Gather { dtype: DType::F32, index_dtype: dtype, outer: 1, extent, inner, picks, along: false };
                let (axis, picked) = (vec![0; extent * inner * 4], vec![0; picks * inner * 4]);
                let operands = [axis.clone(), indices.clone(), picked.clone()];
                errors.extend(refused(driver, &Kernel::Gather(gather.clone()), &operands, extent));
                let operands = [picked.clone(), indices.clone(), axis.clone()];
                errors.extend(refused(driver, &Kernel::ScatterAdd(ScatterAdd(gather.clone())), &operands, extent));
            }
            let along =
                Gather { dtype: DType::F32, index_dtype: dtype, outer: 1, extent, inner: 1, picks, along: true };
            let (axis, picked) = (vec![0; extent * 4], vec![0; picks * 4]);
            let operands = [axis.clone(), indices.clone(), picked.clone()];
            errors.extend(refused(driver, &Kernel::Gather(along.clone()), &operands, extent));
            let operands = [picked, indices.clone(), axis];
            errors.extend(refused(driver, &Kernel::ScatterAdd(ScatterAdd(along)), &operands, extent));
        }
        for error in errors {
            assert_eq!(error, reported(expected, extent), "{dtype} {index}");
        }
    }
    // An axis of no elements has no indices.
    let gather =
        Gather { dtype: DType::F32, index_dtype: DType::I32, outer: 1, extent: 0, inner: 2, picks: 1, along: false };
    let operands = [vec![], index_bytes(DType::I32, &[0]), vec![0; 8]];
    for error in refused(driver, &Kernel::Gather(gather.clone()), &operands, 0) {
        assert_eq!(error, reported(0, 0));
    }
    let operands = [vec![0; 8], index_bytes(DType::I32, &[0]), vec![]];
    for error in refused(driver, &Kernel::ScatterAdd(ScatterAdd(gather)), &operands, 0) {
        assert_eq!(error, reported(0, 0));
    }
}

/// A device that runs dispatches side by side must be told that a block's lists take the place of those before.
#[test]
fn lists_of_a_block_wait_for_the_block_before() {
    let Some(driver) = support::driver() else { return };
    let gather = Gather {
        dtype: DType::F32,
        index_dtype: DType::I32,
        outer: 1,
        extent: 1000,
        inner: 4,
        picks: 20_000,
        along: false,
    };
    for target in targets(driver) {
        let lowering = spirv::lower(&Kernel::ScatterAdd(ScatterAdd(gather.clone())), &target).unwrap();
        let waits: Vec<bool> = lowering.stages.iter().map(|stage| stage.after_barrier).collect();
        // The first lists and what clears the result do not meet.
        let first = waits.iter().position(|waits| *waits).unwrap_or(waits.len());
        assert!(first <= 2 && waits[first..].iter().all(|waits| *waits), "{waits:?}");
    }
}

#[test]
fn refuses_what_the_device_lacks() {
    let Some(driver) = support::driver() else { return };
    let mut target = driver.target().clone();
    (target.has_f64, target.has_bytes, target.has_halves) = (false, false, false);
    let refused = |kernel: Kernel| spirv::lower(&kernel, &target).expect_err("unsupported").to_string();
    let gather = pick([1, 3, 3, 3], DType::U8, DType::I32, false);
    assert!(refused(Kernel::Gather(gather.clone())).contains("u8"));
    assert!(refused(Kernel::Gather(Gather { dtype: DType::BF16, ..gather.clone() })).contains("bf16"));
    let rows = ArgReduce { dtype: DType::F64, max: true, rows: 1, length: 1 };
    assert!(refused(Kernel::ArgReduce(rows)).contains("f64"));
    assert!(refused(Kernel::ScatterAdd(ScatterAdd(Gather { dtype: DType::F64, ..gather.clone() }))).contains("f64"));
    let list = CheckIndex { dtype: DType::F32, count: 1, extent: 1 };
    assert!(refused(Kernel::CheckIndex(list)).contains("f32"));
    // Rows of whole words need no bytes.
    assert!(spirv::lower(&Kernel::Gather(Gather { inner: 8, ..gather }), &target).is_ok());
}

#[test]
fn the_validation_layer_has_nothing_to_say() {
    support::rerun_validated(&["long_lists", "turns"]);
}
