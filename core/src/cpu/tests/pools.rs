//! The largest of windows (of sums, too), which it is and putting values back, against plain loops.

use std::ops::Add;

use tapeflow_ir::DType;

use super::{Buffer, Rng, compile, isas, run};
use crate::cpu::isa::Isa;
use crate::program::kernel::{Kernel, WindowAxis, Windows, WindowsPart};

/// `(extent, kernel, stride)` of both axes.
const CASES: &[[(usize, usize, usize); 2]] = &[
    [(28, 2, 2), (28, 2, 2)],
    [(7, 2, 2), (9, 2, 2)],
    [(1, 1, 1), (50, 2, 2)],
    [(9, 3, 3), (11, 3, 3)],
    [(8, 1, 2), (7, 2, 3)],
    [(4, 2, 2), (67, 1, 1)],
    [(5, 2, 3), (40, 2, 2)],
];

fn windows(dtype: DType, part: WindowsPart, planes: usize, case: [(usize, usize, usize); 2]) -> Windows {
    let axes = case.map(|(extent, kernel, stride)| {
        let places = match part {
            WindowsPart::Place => extent.div_ceil(stride),
            _ => (extent - kernel) / stride + 1,
        };
        WindowAxis { extent, places, kernel, stride }
    });
    Windows { dtype, part, planes, shifts: 0, axes }
}

fn check<T: Copy + PartialOrd + Default + Into<f64> + Add<Output = T>>(
    rng: &mut Rng,
    dtype: DType,
    planes: usize,
    case: usize,
) {
    for isa in isas() {
        let Windows { axes: [down, across], .. } = windows(dtype, WindowsPart::Max, planes, CASES[case]);
        let elements = Buffer::random(rng, dtype, planes * down.extent * across.extent, true);
        let count = planes * down.places * across.places;
        let found = [WindowsPart::Max, WindowsPart::Which].map(|part| {
            let of = if part == WindowsPart::Max { dtype } else { DType::I32 };
            let kernel = windows(dtype, part, planes, CASES[case]);
            let mut buffers = [elements.clone(), Buffer::new(of, count)];
            run(&*compile(Kernel::Windows(kernel.clone()), isa), &mut buffers, &[]).unwrap();
            // The same of what is a sum of elements and a number for each channel.
            let shifts = planes.min(3);
            let numbers = Buffer::random(&mut Rng(7), dtype, shifts, true);
            let of_plane = |plane: usize| numbers.slice::<T>()[plane % shifts];
            let mut sums = elements.clone();
            let plane = down.extent * across.extent;
            let added = sums.slice_mut::<T>().iter_mut().enumerate();
            added.for_each(|(i, x)| *x = *x + of_plane(i / plane));
            let mut expected = [sums, Buffer::new(of, count)];
            run(&*compile(Kernel::Windows(kernel.clone()), isa), &mut expected, &[]).unwrap();
            let mut shifted = [elements.clone(), numbers, Buffer::new(of, count)];
            run(&*compile(Kernel::Windows(Windows { shifts, ..kernel }), isa), &mut shifted, &[]).unwrap();
            let bits = |buffer: &Buffer| match part {
                WindowsPart::Max => buffer.slice::<T>().iter().map(|&x| x.into().to_bits()).collect(),
                _ => buffer.slice::<i32>().iter().map(|&x| x as u64).collect::<Vec<u64>>(),
            };
            assert_eq!(bits(&shifted[2]), bits(&expected[1]), "{part:?} of {:?} on {isa}", CASES[case]);
            buffers[1].clone()
        });
        for i in 0..count {
            let (plane, place) = (i / (down.places * across.places), i % (down.places * across.places));
            let (y, x) = (place / across.places * down.stride, place % across.places * across.stride);
            let at = |tap: (usize, usize)| (plane * down.extent + y + tap.0) * across.extent + x + tap.1;
            let taps = (0..down.kernel).flat_map(|y| (0..across.kernel).map(move |x| (y, x)));
            let best = taps.reduce(|best, tap| {
                let (value, largest) = (elements.slice::<T>()[at(tap)], elements.slice::<T>()[at(best)]);
                let is_nan = value.partial_cmp(&value).is_none();
                if value > largest || is_nan { tap } else { best }
            });
            let tap = best.unwrap();
            let (max, which) = (found[0].slice::<T>()[i].into(), found[1].slice::<i32>()[i]);
            let largest: f64 = elements.slice::<T>()[at(tap)].into();
            assert_eq!(max.to_bits(), largest.to_bits(), "{:?} on {isa} at {i}", CASES[case]);
            assert_eq!(which, (tap.0 * across.stride + tap.1) as i32, "{:?} on {isa} at {i}", CASES[case]);
        }
        check_returned(rng, &elements, (dtype, isa), planes, case);
        let place = windows(dtype, WindowsPart::Place, planes, CASES[case]);
        let [rows, cols] = place.axes.map(|axis| axis.places);
        let values = Buffer::random(rng, dtype, planes * rows * cols, true);
        let numbers: Vec<i32> =
            (0..planes * rows * cols).map(|_| rng.below(down.stride * across.stride + 1) as i32).collect();
        let numbers = Buffer::of(DType::I32, &numbers);
        let mut buffers = [values.clone(), numbers.clone(), Buffer::new(dtype, elements.len)];
        run(&*compile(Kernel::Windows(place), isa), &mut buffers, &[]).unwrap();
        for i in 0..elements.len {
            let (plane, y, x) = (i / across.extent / down.extent, i / across.extent % down.extent, i % across.extent);
            let from = (plane * rows + y / down.stride) * cols + x / across.stride;
            let number = (y % down.stride * across.stride + x % across.stride) as i32;
            let hit = numbers.slice::<i32>()[from] == number;
            let expected: f64 = if hit { values.slice::<T>()[from].into() } else { 0.0 };
            let placed: f64 = buffers[2].slice::<T>()[i].into();
            assert_eq!(placed.to_bits(), expected.to_bits(), "{:?} on {isa} at {i}", CASES[case]);
        }
    }
}

/// Returning values is putting them to the numbers, bit for bit.
fn check_returned(rng: &mut Rng, elements: &Buffer, (dtype, isa): (DType, Isa), planes: usize, case: usize) {
    let of = |part| windows(dtype, part, planes, CASES[case]);
    let [which, place] = [WindowsPart::Which, WindowsPart::Place].map(of);
    let returned = Windows { part: WindowsPart::Return, ..which.clone() };
    if which.axes != place.axes {
        assert!(!returned.is_well_formed(), "{returned:?}");
        return;
    }
    let count = planes * which.axes.map(|axis| axis.places).iter().product::<usize>();
    let values = Buffer::random(rng, dtype, count, true);
    let runs = |windows: &Windows, buffers: &mut [Buffer]| {
        run(&*compile(Kernel::Windows(windows.clone()), isa), buffers, &[]).unwrap();
        buffers[buffers.len() - 1].clone()
    };
    let bits = |buffer: &Buffer| match dtype {
        DType::F32 => buffer.slice::<f32>().iter().map(|x| u64::from(x.to_bits())).collect::<Vec<_>>(),
        _ => buffer.slice::<f64>().iter().map(|x| x.to_bits()).collect(),
    };
    for shifts in [0, planes.min(2)] {
        let added = (shifts > 0).then(|| Buffer::random(rng, dtype, shifts, true));
        let with = |x: &[&Buffer]| x.iter().map(|&x| x.clone()).chain(added.clone()).collect::<Vec<Buffer>>();
        let [which, returned] = [&which, &returned].map(|windows| Windows { shifts, ..windows.clone() });
        let mut buffers = with(&[elements]);
        buffers.push(Buffer::new(DType::I32, count));
        let numbers = runs(&which, &mut buffers);
        let room = Buffer::new(dtype, elements.len);
        let expected = runs(&place, &mut [values.clone(), numbers, room.clone()]);
        let mut buffers = with(&[&values, elements]);
        buffers.push(room);
        let found = runs(&returned, &mut buffers);
        assert_eq!(bits(&found), bits(&expected), "{:?}, {shifts} shifts, on {isa}", CASES[case]);
    }
}

#[test]
fn windows_beside_each_other() {
    let mut rng = Rng(81);
    for case in 0..CASES.len() {
        for planes in [1, 3, 100] {
            check::<f32>(&mut rng, DType::F32, planes, case);
            check::<f64>(&mut rng, DType::F64, planes, case);
        }
    }
}
