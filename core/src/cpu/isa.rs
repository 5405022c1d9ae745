//! Which instruction set the CPU device uses. Owns detection and the `TAPEFLOW_ISA` override; knows no kernels.

use std::fmt;

/// An instruction-set path. Every path computes the same arithmetic; where a function is only specified to a few units
/// in the last place, the paths still share one formula.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// As `Avx512`, with AVX512-BF16: products of bf16 in its instructions, everything else as there.
    Avx512Bf16,
    /// x86-64 with AVX-512 F, BW, DQ and VL.
    Avx512,
    /// x86-64 with AVX2, FMA, BMI2 and F16C.
    Avx2,
    /// AArch64, which has NEON.
    Neon,
    /// Whatever the compiler's target guarantees (SSE2 on x86-64).
    Baseline,
}

/// Why a requested instruction set cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IsaError {
    /// Not a name we know.
    #[error("TAPEFLOW_ISA={0:?} is not an instruction set (avx512bf16, avx512, avx2, neon, baseline)")]
    Unknown(String),
    /// No setting of machine code.
    #[error("TAPEFLOW_JIT={0:?} is neither 0 (no machine code) nor 1")]
    Jit(String),
    /// This machine lacks it.
    #[error("this machine cannot run the instruction set {0}")]
    Unavailable(Isa),
}

impl Isa {
    /// Every path, best first.
    pub const ALL: [Isa; 5] = [Isa::Avx512Bf16, Isa::Avx512, Isa::Avx2, Isa::Neon, Isa::Baseline];

    /// The path to use: the one `TAPEFLOW_ISA` names, or else the best this machine has.
    ///
    /// # Errors
    /// If the variable names an unknown instruction set, or one that this machine lacks.
    pub fn detect() -> Result<Isa, IsaError> {
        match std::env::var("TAPEFLOW_ISA") {
            Ok(name) if !name.is_empty() => Isa::named(&name),
            _ => Ok(Isa::best()),
        }
    }

    /// The best path this machine has.
    pub fn best() -> Isa {
        Isa::ALL.into_iter().find(|isa| isa.is_available()).unwrap_or(Isa::Baseline)
    }

    /// The path of that name, in the spelling of `TAPEFLOW_ISA`.
    ///
    /// # Errors
    /// If there is none of that name, or this machine lacks it.
    pub fn named(name: &str) -> Result<Isa, IsaError> {
        let lower = name.to_ascii_lowercase();
        let isa = Isa::ALL.into_iter().find(|isa| isa.name() == lower);
        let isa = isa.ok_or_else(|| IsaError::Unknown(name.to_owned()))?;
        if isa.is_available() { Ok(isa) } else { Err(IsaError::Unavailable(isa)) }
    }

    /// Whether this machine can run it.
    pub fn is_available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 => Isa::Avx512.is_available() && is_x86_feature_detected!("avx512bf16"),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => {
                Isa::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("bmi2")
                    && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => true,
            Isa::Baseline => true,
            #[allow(unreachable_patterns)]
            _ => false,
        }
    }

    /// The path whose vectors it has, for all but products of bf16.
    pub fn vectors(self) -> Isa {
        match self {
            Isa::Avx512Bf16 => Isa::Avx512,
            other => other,
        }
    }

    /// As `TAPEFLOW_ISA` spells it.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Avx512Bf16 => "avx512bf16",
            Isa::Avx512 => "avx512",
            Isa::Avx2 => "avx2",
            Isa::Neon => "neon",
            Isa::Baseline => "baseline",
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_mistakes_are_errors() {
        for isa in Isa::ALL {
            match Isa::named(isa.name()) {
                Ok(found) => assert_eq!(found, isa),
                Err(error) => assert_eq!(error, IsaError::Unavailable(isa)),
            }
        }
        assert_eq!(Isa::named("AVX1024"), Err(IsaError::Unknown("AVX1024".into())));
        assert_eq!(Isa::named("BASELINE"), Ok(Isa::Baseline));
    }
}
