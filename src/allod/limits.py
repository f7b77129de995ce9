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
BODY_GRACE_S = 60.0  # what a body may be behind the least rate: a trickle ends here
BODY_BYTES_PER_S_MIN = 16 * KIB  # the least rate of a body over its whole length: 128 kbit/s
KEEPALIVE_IDLE_TIMEOUT_S = 75.0  # nginx's default
ENGINE_CONNECT_TIMEOUT_S = 2.0  # a Unix socket answers at once or its process is gone
ENGINE_FIRST_BYTE_TIMEOUT_S = 600.0  # prompt processing of a long document on a CPU
ENGINE_IDLE_TIMEOUT_S = 120.0  # between two frames of a stream
WRITE_BUFFER_HIGH_BYTES = 256 * KIB  # above this the engine is paused until the client has read
ENGINE_POOL_IDLE_MAX = 128  # idle connections kept per replica and worker
SSE_FRAME_BYTES_MAX = 1 * MIB  # one frame of a stream; a tool call's arguments are far below
ENGINE_CHOICES_MAX = 128  # `n` at engines whose usage counts every choice; what OpenAI itself takes
RELAY_HOLD_BYTES = 256 * KIB  # an answer up to here is held whole; above, all but its last piece is relayed
PIPELINED_BYTES_MAX = 64 * KIB  # requests sent ahead on one connection; above, it is not read until its turn
BODY_COLONS_MAX = 512 * KIB  # in a body that has to be edited; bounds the memory for looking at its keys
BODY_KEYS_MAX = 4_096  # top-level keys of such a body: each is looked at one by one
BODIES_BYTES_MAX = 512 * MIB  # request bodies in memory at once, per worker; above: 503 with Retry-After
CLIENT_STALL_TIMEOUT_S = 60.0  # a client that does not read its answer does not hold an engine for ever
SWEEP_INTERVAL_S = 0.5  # how coarse the front's timeouts are: one sweep instead of a timer per request
DRAIN_S = 15.0  # after SIGTERM: exchanges in flight may finish, shorter than the launcher's own grace
FRONT_CACHE_ENTRIES_MAX = 4_096  # keys and decisions remembered per snapshot and worker
CONNECTIONS_PER_WORKER_MAX = 8_192  # beyond: 503 at once, instead of the kernel's silence

# --- documents (OCR engine) ---------------------------------------------------------------------------
PAGES_PER_REQUEST_MAX = 1_000  # what one synchronous answer can carry; more goes through the batch interface
PAGE_PIXELS_MAX = 60_000_000  # A3 at 450 dpi; above is a bomb or wants the batch interface
PAGE_CPU_SECONDS_MAX = 60  # one page; the slowest measured honest page took 7
PAGE_WALL_SECONDS_MAX = 180.0  # one page with its retries, on a machine that is busy elsewhere
PAGE_MEMORY_BYTES_MAX = 3 * 1024 * MIB  # address space of one page worker; the neural reader needs 1 GiB
EMBEDDED_IMAGE_PIXELS_MAX = 150_000_000  # a picture in a PDF is drawn smaller, so it may be larger: A0 at 270
RENDER_PIXELS_MAX = 16_000_000  # A4 at 400 dpi; a larger sheet is drawn at a lower resolution
INSPECT_CPU_SECONDS_MAX = 10  # opening a document and counting its pages; 10,000 pages take under one
DOCUMENT_BYTES_MAX = 48 * MIB  # what BODY_BYTES_MAX carries as base64
OCR_REQUESTS_IN_FLIGHT_MAX = 16  # each may hold a whole body in memory; beyond: 503 with Retry-After

# --- ledger -------------------------------------------------------------------------------------------
LEAF_BYTES_MAX = 65_535  # C2SP tlog-tiles: entries are prefixed with a uint16 length
SPOOL_SEGMENT_BYTES = 16 * MIB  # preallocated, so that a full disk is met before the request is taken
SPOOL_BYTES_MAX = 1024 * MIB  # per worker, while the control process is away
SPOOL_SEGMENT_BYTES_MIN = 512 * KIB  # several of the largest records fit into one
SPOOL_INTENT_BYTES_MAX = 16 * KIB  # space set aside per admitted request for its first record
SPOOL_END_BYTES_MAX = 16 * KIB  # and for its last; a larger leaf (rare) is taken while there is room for it
SPOOL_OPENING_BYTES_MAX = 4 * KIB  # private note beside a record key
DRAIN_ENTRIES_MAX = 8_192  # leaves integrated in one step: bounds its memory to about 20 MiB
NOTE_BYTES_MAX = 256 * KIB  # sixteen post-quantum signatures fit several times
NOTE_SIGNATURES_MAX = 64  # C2SP signed-note: at least 16 have to be accepted
PROOF_HASHES_MAX = 63  # the depth of a tree of 2^63 leaves
INDEX_CHUNK_LEAVES = 16_384  # leaves per key, opening and id file: what is kept in memory while a chunk fills
WITNESS_INTERVAL_S = 5.0  # how far behind the head the cosigned checkpoint may be
WITNESS_TIMEOUT_S = 10.0  # a request to a witness is a few kilobytes
INTEGRATE_INTERVAL_S = 0.5  # a durable receipt waits this long for its place, or until somebody asks for it

# --- identity -----------------------------------------------------------------------------------------
KEY_LIFETIME_DEFAULT_DAYS = 90  # BSI and ANSSI both ask for rotation; a longer life is asked for by name
KEYS_PER_PROJECT_MAX = 1_000
NAME_CHARS_MAX = 64
KEY_LIFETIME_MAX_DAYS = 3_650  # ten years: what an appliance on a plant floor may need, never for ever
DATABASE_CONNECT_TIMEOUT_S = 3  # an administrator waits; a longer silence is an answer
DATABASE_BUSY_TIMEOUT_S = 5.0  # another process holds SQLite's write lock

# --- api ----------------------------------------------------------------------------------------------
ADMIN_BODY_BYTES_MAX = 64 * KIB  # an administrative request is a handful of names
EXCHANGES_PER_PAGE_MAX = 500  # one page of statements stays near a megabyte
SSE_LINE_BYTES_MAX = 4 * MIB  # one event of an engine; a whole tool call fits many times
CHOICES_MAX = 16  # `n`: alternatives of one request, each a full generation

# --- console ------------------------------------------------------------------------------------------
CONSOLE_SESSION_S = 3_600  # absolute: a forgotten browser tab stops being a way in after an hour
CONSOLE_LOGIN_FAILURES_MAX = 10  # per source and window; keys hold 256 bits: this protects the node
CONSOLE_LOGIN_WINDOW_S = 60
CONSOLE_LOGIN_SOURCES_MAX = 4_096  # remembered sources of failed sign-ins; the oldest is forgotten first
CONSOLE_UPLOAD_BYTES_MAX = 24_000_000  # one document, held in memory while it is sent on
CONSOLE_FORM_BYTES_MAX = 256 * KIB  # everything else in a form: a prompt of some sixty pages
CONSOLE_EXCHANGES_SHOWN = 25  # what one screenful and one poll carry
CONSOLE_ANSWER_CHARS_SHOWN = 200_000  # beyond, a browser's layout suffers; the answer is cut with a note
CONSOLE_POLL_S = 5
CONSOLE_TOKENS_MAX = 4_096  # longest answer the playground asks for

# --- runtime (replicas) -------------------------------------------------------------------------------
RESTART_BACKOFF_FIRST_S = 0.5  # a single crash should cost nobody a visible pause
RESTART_BACKOFF_MAX_S = 60.0  # a hopeless replica costs one start a minute, never a hot loop
RESTART_STEADY_S = 60.0  # ready for this long: the next crash starts at the first back-off again
CRASH_LOOP_STARTS = 3  # failed starts in a row after which waiting for readiness is given up
HEALTH_TIMEOUT_S = 5.0  # an engine in the middle of a long prompt may answer late
HEALTH_STARTING_INTERVAL_S = 0.05  # a starting replica is asked often: its wake time is somebody's wait
HEALTH_READY_INTERVAL_S = 2.0
HEALTH_FAILURES_MAX = 3  # in a row before a ready replica counts as unhealthy
UNHEALTHY_RESTART_S = 120.0  # silent for this long: restarted; shorter would kill long honest work
STOP_GRACE_S = 5.0  # between SIGTERM and SIGKILL
REPLICA_LOG_BYTES_MAX = 8 * MIB  # per replica; as much again is kept as `.log.1`
REPLICA_TMP_BYTES_MAX = 1024 * MIB  # the private /tmp and /dev/shm live in memory, each up to this
REPLICA_FILE_BYTES_MAX = 1024 * MIB  # one file, its log included: beyond, the kernel ends the replica
REPLICA_PROCESSES_MAX = 8_192  # threads included; a large machine's model server has some two thousand

# --- sites (providers) --------------------------------------------------------------------------------
PROVIDER_KEY_BYTES_MAX = 8 * KIB  # the longest bearer tokens are signed and stay under 4 KiB

# --- models -------------------------------------------------------------------------------------------
GGUF_HEADER_BYTES_MAX = 256 * MIB  # a 256k-token vocabulary with merges is near 20 MiB
SAFETENSORS_HEADER_BYTES_MAX = 100 * MIB  # the format's own bound
GGUF_KEYS_MAX = 10_000  # real files have around 40
GGUF_TENSORS_MAX = 100_000  # the largest open-weight models have a few thousand
MODEL_TAG_CHARS_MAX = 128  # OCI distribution specification
MODEL_FILES_MAX = 2_048  # a model of 10^12 parameters comes in a few hundred pieces
MODEL_CONFIG_BYTES_MAX = 4 * MIB  # config.json: a few kB, but quantised ones name every layer
MODEL_JSON_BYTES_MAX = 64 * MIB  # tokenizer.json of a 256k vocabulary is near 35 MiB
MODEL_TEXT_BYTES_MAX = 16 * MIB  # vocabularies and merges as text; a model card is a few KiB
CHAT_TEMPLATE_BYTES_MAX = 1 * MIB  # real templates stay under 30 KiB
CHAT_TEMPLATE_SECONDS_MAX = 5  # rendering four messages takes a millisecond
CHAT_TEMPLATE_MEMORY_BYTES_MAX = 512 * MIB  # address space of the process that renders it
OMS_SIGNATURE_BYTES_MAX = 8 * MIB  # some 200 bytes per file of the model
LINEAGE_BYTES_MAX = 4 * MIB  # a dataset of ten thousand shards, each by name and digest
INSTRUCTIONS_BYTES_MAX = 256 * KIB  # the longest published system prompts are a tenth of this
TRUST_PEM_BYTES_MAX = 1 * MIB  # a whole public certificate store is a quarter of this
FILE_DIGESTS_REMEMBERED_MAX = 8_192  # model files of one node; beyond, they are read again
MODEL_PARTIAL_KEPT_S = 86_400  # a pull that was broken off can be gone on with for a day, whatever is pruned
MODEL_RECEIPTS_DAYS = 183  # six months: AI Act, Art. 19 and 26, for the logs that name the model
SOURCE_CONNECT_TIMEOUT_S = 10.0  # a hub across the world with two lost packets
SOURCE_READ_TIMEOUT_S = 60.0  # silence in the middle of a transfer: it is then begun again where it ended
SOURCE_TRIES_MAX = 5  # per piece of a file, each after a longer pause
SOURCE_PIECE_BYTES = 8 * MIB  # what a killed pull loses of each of its parallel transfers
SOURCE_TRANSFERS = 4  # at the same time; more help only on links beyond 10 Gbit/s
SOURCE_MANIFEST_BYTES_MAX = 4 * MIB  # OCI distribution: what registries have to take
ONNX_NODES_MAX = 1_000_000  # fields looked at; exported models have tens of thousands of nodes
BUNDLE_MANIFEST_BYTES_MAX = 32 * MIB  # some 200 bytes per file
BUNDLE_FILES_MAX = 100_000  # fifty models of the most files, and everything else
BUNDLE_SIGNATURE_BYTES_MAX = 160  # ECDSA on P-521 in DER takes 139
BUNDLE_TEXT_BYTES_MAX = 8 * MIB  # a rule, a site, a prompt; a model's signature is the largest

# --- engines ------------------------------------------------------------------------------------------
PROVIDER_CONNECT_TIMEOUT_S = 5.0  # across the continent with one lost packet; then the next site is tried
PROVIDER_CONNECTIONS_MAX = 256  # exchanges in flight towards one provider
PROVIDER_ERROR_BYTES_MAX = 64 * KIB  # an error page is read no further
EMBEDDING_INPUTS_MAX = 2048  # what OpenAI takes in one request
SOCKET_PATH_BYTES_MAX = 107  # sun_path of Linux's sockaddr_un, less its terminating zero

# --- kyc (screening) ----------------------------------------------------------------------------------
LIST_FILE_BYTES_MAX = 512 * MIB  # OFAC's full XML is near 120 MiB, collections of many lists are larger
LIST_TOKEN_BYTES_MAX = 1 * MIB  # one tag with its attributes; the longest real remark is 20 KiB
LIST_RECORD_BYTES_MAX = 8 * MIB  # text of one entry
LIST_DEPTH_MAX = 32  # nested elements; the official formats stay under ten
LIST_ENTRIES_MAX = 2_000_000  # memory while a list is taken in: some 2 KiB each
LIST_CSV_FIELD_BYTES_MAX = 128 * KIB  # one field; OFAC's remarks end at 1,000 characters
SCREEN_NAMES_MAX = 5_000_000  # rows of one batch; a larger customer base is screened in pieces

# --- the node -------------------------------------------------------------------------------------------
RECEIPT_WAIT_S = 1.0  # a durable receipt has its place in the tree well within this
EXCHANGES_SCANNED_MAX = 20_000  # leaves looked at for one page of exchanges of one project
DISK_FREE_BYTES_MIN = 128 * MIB  # below, the node says that it is about to stop taking requests

# --- identity documents and identifiers (kyc) -----------------------------------------------------------
MRZ_TEXT_CHARACTERS_MAX = 200_000  # text searched for a zone: some fifty pages; the rest is not looked at
IDENTIFIER_CHARACTERS_MAX = 64  # with blanks and dots; the longest identifier, an IBAN, has 34

# --- policy -------------------------------------------------------------------------------------------
POLICY_RULE_CHARS_MAX = 8_000  # the longest rule of the bundled pack has a thousand
POLICY_NESTING_MAX = 32  # of brackets in a rule; Cedar's parser overflows its stack at some hundreds
