#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| kelda_fuzz::partition_machine(input));
