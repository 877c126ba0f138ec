;; The WASI parts of guest.wat: imports, and the messages that use them. guest.rs inserts each part where guest.wat
;; names it.
(; PART IMPORTS ;)
  (import "wasi:cli/environment@0.2.0" "get-environment" (func $environment (param i32)))
  (import "wasi:cli/environment@0.2.0" "get-arguments" (func $arguments (param i32)))
  (import "wasi:cli/environment@0.2.0" "initial-cwd" (func $cwd (param i32)))
  (import "wasi:cli/exit@0.2.0" "exit" (func $exit (param i32)))
  (import "wasi:cli/stdin@0.2.0" "get-stdin" (func $stdin (result i32)))
  (import "wasi:cli/stdout@0.2.0" "get-stdout" (func $stdout (result i32)))
  (import "wasi:clocks/monotonic-clock@0.2.0" "now" (func $monotonic (result i64)))
  (import "wasi:clocks/monotonic-clock@0.2.0" "subscribe-duration" (func $timer (param i64) (result i32)))
  (import "wasi:clocks/wall-clock@0.2.0" "now" (func $wall (param i32)))
  (import "wasi:filesystem/preopens@0.2.0" "get-directories" (func $directories (param i32)))
  (import "wasi:io/poll@0.2.0" "[method]pollable.block" (func $block (param i32)))
  (import "wasi:io/poll@0.2.0" "[resource-drop]pollable" (func $drop_pollable (param i32)))
  (import "wasi:io/poll@0.2.0" "poll" (func $poll (param i32 i32 i32)))
  (import "wasi:io/streams@0.2.0" "[method]input-stream.blocking-read" (func $read (param i32 i64 i32)))
  (import "wasi:io/streams@0.2.0" "[method]output-stream.blocking-write-and-flush"
    (func $write (param i32 i32 i32 i32)))
  (import "wasi:io/streams@0.2.0" "[resource-drop]output-stream" (func $drop_output (param i32)))
  (import "wasi:random/random@0.2.0" "get-random-u64" (func $random (result i64)))
  (import "wasi:sockets/tcp-create-socket@0.2.0" "create-tcp-socket" (func $socket (param i32 i32)))
(; PART FUNCTIONS ;)
  ;; Returns the number of items in everything that must be empty: 0.
  (func $found (param $at i32) (result i64)
    (local $sum i32)
    (call $environment (local.get $at))
    (local.set $sum (i32.load offset=4 (local.get $at)))
    (call $arguments (local.get $at))
    (local.set $sum (i32.add (local.get $sum) (i32.load offset=4 (local.get $at))))
    (call $directories (local.get $at))
    (local.set $sum (i32.add (local.get $sum) (i32.load offset=4 (local.get $at))))
    (call $cwd (local.get $at))
    (i64.extend_i32_u (i32.add (local.get $sum) (i32.load8_u (local.get $at)))))

  ;; Waits in `poll` until the clock has advanced.
  (func $wait (param $at i32)
    (local $timer i32) (local $began i64)
    (local.set $began (call $monotonic))
    (loop $again
      (local.set $timer (call $timer (i64.const 1000000)))
      (i32.store (local.get $at) (local.get $timer))
      (call $poll (local.get $at) (i32.const 1) (i32.add (local.get $at) (i32.const 8)))
      (call $drop_pollable (local.get $timer))
      (br_if $again (i64.eq (call $monotonic) (local.get $began)))))

  (func $print (param $text i32) (param $length i32) (param $at i32)
    (local $stream i32)
    (local.set $stream (call $stdout))
    (call $write (local.get $stream) (local.get $text) (local.get $length) (local.get $at))
    (if (i32.load8_u (local.get $at)) (then unreachable))
    (call $drop_output (local.get $stream)))
(; PART MESSAGES ;)
    (local.set $scratch (call $alloc (i32.const 8) (i32.const 64)))
    (if (i32.eq (local.get $kind) (i32.const 0x65)) ;; e: everything besides messages
      (then (local.set $n (call $found (local.get $scratch)))))
    (if (i32.eq (local.get $kind) (i32.const 0x74)) ;; t: the time
      (then
        (call $wall (local.get $scratch))
        (local.set $n (i64.add (call $monotonic) (i64.load (local.get $scratch))))))
    (if (i32.eq (local.get $kind) (i32.const 0x75)) ;; u: a random number
      (then (local.set $n (call $random))))
    (if (i32.eq (local.get $kind) (i32.const 0x73)) ;; s: sleep for an hour
      (then (call $block (call $timer (i64.const 3600000000000)))))
    (if (i32.eq (local.get $kind) (i32.const 0x7a)) (then (call $wait (local.get $scratch)))) ;; z
    (if (i32.eq (local.get $kind) (i32.const 0x30)) ;; 0: poll an empty list
      (then (call $poll (i32.const 0) (i32.const 0) (local.get $scratch))))
    (if (i32.eq (local.get $kind) (i32.const 0x70)) ;; p: print
      (then (call $print (local.get $text) (local.get $length) (local.get $scratch))))
    (if (i32.eq (local.get $kind) (i32.const 0x79)) ;; y: print endlessly
      (then (loop $more (call $print (local.get $text) (local.get $length) (local.get $scratch)) (br $more))))
    (if (i32.eq (local.get $kind) (i32.const 0x69)) ;; i: read; result and error are n
      (then
        (call $read (call $stdin) (i64.const 10) (local.get $scratch))
        (local.set $n (i64.extend_i32_u (i32.add
          (i32.mul (i32.load8_u (local.get $scratch)) (i32.const 10))
          (i32.load8_u offset=4 (local.get $scratch)))))))
    (if (i32.eq (local.get $kind) (i32.const 0x63)) ;; c: open a socket; result and error are n
      (then
        (call $socket (i32.const 0) (local.get $scratch))
        (local.set $n (i64.extend_i32_u (i32.add
          (i32.mul (i32.load8_u (local.get $scratch)) (i32.const 10))
          (i32.load8_u offset=4 (local.get $scratch)))))))
    (if (i32.eq (local.get $kind) (i32.const 0x78)) (then (call $exit (i32.const 1)))) ;; x
    (if (i32.eq (local.get $kind) (i32.const 0x68)) ;; h: create handles endlessly
      (then (loop $more (drop (call $stdout)) (br $more))))
