#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| distci_forge::fuzzing::refusal(data));
