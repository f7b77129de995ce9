"""Every bound, with its unit in its name and its reason beside it. No bound lives anywhere else."""

from __future__ import annotations

KIB = 1024
MIB = 1024 * KIB

# --- HTTP (front) -------------------------------------------------------------------------------------
HEADER_BYTES_MAX = 32 * KIB  # nginx allows 4 x 8 KiB; bearer tokens and cookies fit several times
HEADER_COUNT_MAX = 100  # what Apache allows; a flood costs a bounded scan
URI_BYTES_MAX = 8 * KIB  # nginx's default line
BODY_BYTES_MAX = 64 * MIB  # a 48 MiB scan as base64; larger work goes through the batch interface
HEADER_TIMEOUT_S = 10.0  # from the first byte of a request to its last header byte
BODY_IDLE_TIMEOUT_S = 30.0  # between two body reads: a slow client does not hold memory for ever
KEEPALIVE_IDLE_TIMEOUT_S = 75.0  # nginx's default
ENGINE_CONNECT_TIMEOUT_S = 2.0  # a Unix socket answers at once or its process is gone
ENGINE_FIRST_BYTE_TIMEOUT_S = 600.0  # prompt processing of a long document on a CPU
ENGINE_IDLE_TIMEOUT_S = 120.0  # between two frames of a stream
WRITE_BUFFER_HIGH_BYTES = 256 * KIB  # above this the engine is paused until the client has read
ENGINE_POOL_IDLE_MAX = 128  # idle connections kept per replica and worker
CONNECTIONS_PER_WORKER_MAX = 8_192  # beyond: 503 at once, instead of the kernel's silence

# --- documents (OCR engine) ---------------------------------------------------------------------------
PAGES_PER_REQUEST_MAX = 1_000  # what one synchronous answer can carry; more goes through the batch interface
PAGE_PIXELS_MAX = 60_000_000  # A3 at 450 dpi; above is a bomb or wants the batch interface
PAGE_CPU_SECONDS_MAX = 60  # one page; the slowest measured honest page took 7

# --- ledger -------------------------------------------------------------------------------------------
LEAF_BYTES_MAX = 65_535  # C2SP tlog-tiles: entries are prefixed with a uint16 length
SPOOL_SEGMENT_BYTES = 16 * MIB  # preallocated, so that a full disk is met before the request is taken
SPOOL_BYTES_MAX = 1024 * MIB  # per worker, while the control process is away
INTEGRATE_INTERVAL_S = 0.1  # longest time a durable receipt waits for its place in the tree

# --- identity -----------------------------------------------------------------------------------------
KEY_LIFETIME_DEFAULT_DAYS = 90  # BSI and ANSSI both ask for rotation; a longer life is asked for by name
KEYS_PER_PROJECT_MAX = 1_000
NAME_CHARS_MAX = 64

# --- api ----------------------------------------------------------------------------------------------
ADMIN_BODY_BYTES_MAX = 64 * KIB  # an administrative request is a handful of names
EXCHANGES_PER_PAGE_MAX = 500  # one page of statements stays near a megabyte
SSE_LINE_BYTES_MAX = 4 * MIB  # one event of an engine; a whole tool call fits many times
CHOICES_MAX = 16  # `n`: alternatives of one request, each a full generation

# --- console ------------------------------------------------------------------------------------------
CONSOLE_SESSION_S = 3_600  # absolute: a forgotten browser tab stops being a way in after an hour
CONSOLE_LOGIN_FAILURES_MAX = 10  # per source and window; keys hold 256 bits, so this protects the node, not the key
CONSOLE_LOGIN_WINDOW_S = 60
CONSOLE_LOGIN_SOURCES_MAX = 4_096  # remembered sources of failed sign-ins; the oldest is forgotten first
CONSOLE_UPLOAD_BYTES_MAX = 24 * MIB  # one document, held in memory while it is sent on
CONSOLE_FORM_BYTES_MAX = 256 * KIB  # everything else in a form: a prompt of some sixty pages
CONSOLE_EXCHANGES_SHOWN = 25  # what one screenful and one poll carry
CONSOLE_ANSWER_CHARS_SHOWN = 200_000  # beyond, a browser's layout suffers; the answer is cut with a note
CONSOLE_POLL_S = 5
CONSOLE_TOKENS_MAX = 4_096  # longest answer the playground asks for
