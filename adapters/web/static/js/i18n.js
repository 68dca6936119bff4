// The words of the dashboard, in English and Indonesian.

const WORDS = {
  en: {
    title: "Exam monitoring", exam: "Exam", skip: "Skip to the students",
    active: "Active", away: "Away", reconnecting: "Reconnecting", offline: "Offline", paused: "Paused", submitted: "Submitted",
    not_joined: "Not joined", timed_out: "Time over", terminated: "Ended by proctor",
    all: "All", statuses: "Statuses",
    seconds: "{n} s", minutes: "{n} min", hours: "{n} h",
    live: "Live", as_of: "as of {time}", behind: "{s} s behind", reporting: "{n} of {of} reporting", nobody: "nobody is taking the exam yet",
    connecting: "Connecting", reconnect_in: "Not live since {time}. Reconnecting, attempt {n}.",
    reconnect_first: "Connecting to the service.", not_live: "Not live",
    stale_note: "What is shown below is how things stood then.", loading: "Loading the students",
    stopped_token: "Your access has ended. Open the dashboard again from your school's page; this one stays as it was.",
    stopped_forbidden: "This access is not for this exam. Open the dashboard from your school's page.",
    stopped_closed: "The service closed this dashboard ({code}). Reload the page to come back.",
    token_ends: "Your access ends in {n} min. Open the dashboard again from your school's page to go on without a gap.",
    no_token: "This page needs a proctor's link. Open the dashboard from your school's page.",
    search: "Search name, id or group", group: "Group", all_groups: "All groups", sort: "Sort by", sort_name: "By name", sort_risk: "By risk score",
    sort_status: "By status", sort_left: "By time left", sort_away: "By time away", sort_answered: "By answers", sort_question: "By question",
    sort_score: "By score", ascending: "ascending", descending: "descending", view_table: "Table", view_tiles: "Tiles",
    freeze: "Hold the order", frozen: "Order held", freeze_hint: "Rows stay where they are; what they show goes on.",
    export: "Export", export_hint: "CSV files, for a spreadsheet.", export_shown: "{n} students shown", export_timeline: "Timeline of everyone", export_talk: "Messages and hands", shown: "{n} of {of} students", settings: "Settings", help: "Keyboard shortcuts",
    attention: "Needs attention", attention_none: "Nobody needs attention right now.", attention_more: "{n} more: show them all",
    attention_new: "{n} new", everyone: "Everyone", shown_attention: "Only who needs attention", clear_filter: "Show everyone",
    acknowledge: "Acknowledge", acknowledge_hint: "Seen and dealt with, for all proctors", settled: "is back", settled_hand: "hand is down", settled_other: "no longer",
    hand_raised: "hand raised", several_pages: "open in several pages", flagged: "flagged", warned: "warned",
    reason_hand_raised: "Hand raised", reason_offline: "Offline", reason_away: "Away", reason_several_pages: "Open in several pages",
    reason_flagged: "Flagged by a proctor", for: "for {d}", since: "since {time}",
    col_student: "Student", col_status: "Status", col_progress: "Progress", col_question: "Question", col_left: "Time left",
    col_away: "Away", col_score: "Score", col_flags: "Notes", col_risk: "Risk", col_select: "Select",
    question_n: "Q{n}", answered_of: "{n}/{of}", answered_words: "{n} of {of} answered", away_times: "{n}× · {d}", none: "none",
    reported: "reported", over: "over", select_student: "Select {name}", select_all: "Select all shown",
    no_match: "No student matches. ", empty_exam: "Nobody is on the roster yet, and nobody has joined. Students appear here by themselves.",
    selected: "{n} selected", clear: "Clear", act_on: "Act on {n} shown", to_all: "Whole exam",
    message: "Message", warn: "Warn", pause: "Pause", resume: "Resume", update: "Extra time", terminate: "End attempt", flag: "Flag",
    to_one: "To {name}", to_some: "To {n} students", to_everyone: "To everyone in the exam, also who joins later",
    words: "Your words", words_hint: "Up to 500 characters. The student sees them at once.", warn_hint: "The student has to confirm that they read it.",
    ready_made: "Ready-made", canned_1: "Please stay on the exam page.", canned_2: "Please check your internet connection.",
    canned_3: "A proctor is coming to your seat.", canned_4: "You have ten minutes left.", minutes_more: "Minutes more", lost_minutes: "Offline for {d} so far.",
    reason: "Reason", reason_choose: "Choose a reason", r_environment: "Room or noise", r_technical: "Technical problem", r_examinee: "Student's request",
    r_identity: "Identity check", r_rules: "Exam rules", r_incident: "Lost time in an outage", r_other: "Other", note: "Note for the record",
    allowed: "{n} will get it", waiting_too: "{n} of them are not connected: it waits up to {d} for them", refused: "{n} will be refused",
    refused_not_joined: "has not joined", refused_submitted: "has submitted", refused_timed_out: "time is over",
    refused_terminated: "attempt has ended", refused_paused: "is paused", refused_in_progress: "is not paused", refused_no_end: "has no known end",
    type_to_confirm: "Type {word} to confirm", send: "Send", cancel: "Cancel", close: "Close",
    cannot_send: "Not live: the command is sent when the connection is back.",
    commands: "Commands", hands: "Hands", messages: "Messages", inbox: "Inbox", no_hands: "No hand is raised.", no_messages: "No student has written.",
    no_commands: "No commands since you opened this page.", waiting_for: "waiting {d}", by_you: "you", by_other: "another proctor", by_school: "the school",
    accepted: "waiting", sent: "sent", delivered: "delivered", confirmed: "confirmed", expired: "expired", refused_short: "refused", pending: "not sent yet",
    reply: "Reply", lower: "Take down", raised_hand: "raised a hand", lowered_hand: "took the hand down",
    details: "Details of {name}", facts: "Now", id: "Student id", connection: "Connection", attention_axis: "Attention",
    connected: "connected", left: "left the page", focused: "on the page", unknown: "unknown", reconnects: "Reconnections", offline_total: "Offline",
    pages_open: "Pages open", one: "one", several: "several", attempt: "Attempt", started: "Started", ends: "Ends",
    show_score: "Show", risk_title: "Risk score", risk_note: "A sum of facts, to sort by. It is no verdict.",
    risk_away_count: "times away", risk_away_time: "time away", risk_offline_time: "time offline", risk_none: "Nothing adds to it.",
    timeline: "Timeline", timeline_note: "The service's record, newest first.", timeline_loading: "Reading the service's record.",
    timeline_failed: "The service's record can't be read: {why}. Shown is what happened since you opened this page at {time}.",
    timeline_empty: "Nothing has happened yet.", messages_failed: "Earlier messages can't be read: {why}", again: "Try again", earlier: "Show earlier", export_failed: "There is no file: {why}",
    talk: "Conversation", write: "Write to the student", previous: "Previous student", next: "Next student",
    cause_silence: "nothing was heard any more", cause_left: "the page was closed", cause_reported_away: "the page went to the background",
    cause_reported_back: "the page is in front again", cause_heard_again: "heard again", cause_joined: "opened the exam", cause_proctor: "by a proctor",
    cause_reported_submitted: "handed in", cause_time_over: "the time was over", cause_dropped: "the connection broke",
    cause_lost_by_us: "the service moved the connection", event_attempt: "A new attempt began",
    event_session_opened: "Opened the exam in one more page", event_session_evicted: "A fourth page was opened: the oldest was closed",
    incident_silence: "{n} students fell silent together at {time}. This is one outage: nobody is shown offline until it is over, and the time is not charged.",
    incident_service: "The service itself was interrupted at {time}. No student is charged for it.", incident_over: "Over since {time}: {text}",
    dismiss: "Dismiss", sound: "Sound", desktop: "Desktop alerts", alerts_hint: "At most one alert every 10 seconds.", theme: "Colours",
    theme_auto: "As the system", theme_light: "Light", theme_dark: "Dark", lang: "Language", density: "Rows", comfortable: "Comfortable", compact: "Compact",
    scores: "Show scores", scores_hint: "Hidden at first: a proctor rarely needs them.", shortcuts: "Single-key shortcuts", desktop_denied: "The browser does not allow it.",
    alert_attention: "{n} students need attention", alert_one: "{name}: {what}", summary: "{offline} offline, {away} away, {hands} raised hands, {n} of {of} reporting.",
    tiles_label: "Map of all students, one tile each. Arrow keys move, Enter opens the details.",
    ungrouped: "No group", k_search: "Search", k_move: "Next and previous row", k_open: "Open details", k_select: "Select the row",
    k_message: "Message", k_warn: "Warn", k_pause: "Pause or resume", k_ack: "Acknowledge", k_tiles: "Table or tiles", k_freeze: "Hold the order",
    k_close: "Close, or clear the selection", k_help: "This help",
    about_away: "Away is what the browser reported, offline what the service inferred from silence.",
  },
  id: {
    title: "Pemantauan ujian", exam: "Ujian", skip: "Langsung ke daftar siswa",
    active: "Aktif", away: "Menjauh", reconnecting: "Menyambung ulang", offline: "Luring", paused: "Dijeda", submitted: "Terkumpul",
    not_joined: "Belum masuk", timed_out: "Waktu habis", terminated: "Dihentikan pengawas",
    all: "Semua", statuses: "Status",
    seconds: "{n} dtk", minutes: "{n} mnt", hours: "{n} jam",
    live: "Langsung", as_of: "keadaan {time}", behind: "tertinggal {s} dtk", reporting: "{n} dari {of} melapor", nobody: "belum ada yang mengerjakan",
    connecting: "Menyambung", reconnect_in: "Tidak langsung sejak {time}. Menyambung ulang, percobaan {n}.",
    reconnect_first: "Menyambung ke layanan.", not_live: "Tidak langsung",
    stale_note: "Yang tampak di bawah adalah keadaan saat itu.", loading: "Memuat daftar siswa",
    stopped_token: "Akses Anda telah berakhir. Buka lagi dasbor dari halaman sekolah; halaman ini tetap seperti adanya.",
    stopped_forbidden: "Akses ini bukan untuk ujian ini. Buka dasbor dari halaman sekolah.",
    stopped_closed: "Layanan menutup dasbor ini ({code}). Muat ulang halaman untuk kembali.",
    token_ends: "Akses Anda berakhir dalam {n} mnt. Buka lagi dasbor dari halaman sekolah agar tidak terputus.",
    no_token: "Halaman ini memerlukan tautan pengawas. Buka dasbor dari halaman sekolah.",
    search: "Cari nama, id, atau kelompok", group: "Kelompok", all_groups: "Semua kelompok", sort: "Urutkan", sort_name: "Menurut nama", sort_risk: "Menurut risiko",
    sort_status: "Menurut status", sort_left: "Menurut sisa waktu", sort_away: "Menurut menjauh", sort_answered: "Menurut jawaban", sort_question: "Menurut soal",
    sort_score: "Menurut nilai", ascending: "naik", descending: "turun", view_table: "Tabel", view_tiles: "Petak",
    freeze: "Tahan urutan", frozen: "Urutan ditahan", freeze_hint: "Baris tetap di tempatnya; isinya tetap diperbarui.",
    export: "Ekspor", export_hint: "Berkas CSV, untuk lembar kerja.", export_shown: "{n} siswa yang tampak", export_timeline: "Linimasa semua siswa", export_talk: "Pesan dan angkat tangan", shown: "{n} dari {of} siswa", settings: "Pengaturan", help: "Pintasan papan tik",
    attention: "Perlu perhatian", attention_none: "Saat ini tidak ada yang perlu perhatian.", attention_more: "{n} lagi: tampilkan semua",
    attention_new: "{n} baru", everyone: "Semua siswa", shown_attention: "Hanya yang perlu perhatian", clear_filter: "Tampilkan semua",
    acknowledge: "Tandai selesai", acknowledge_hint: "Sudah dilihat dan ditangani, untuk semua pengawas", settled: "sudah kembali", settled_hand: "tangan sudah turun", settled_other: "sudah tidak",
    hand_raised: "angkat tangan", several_pages: "terbuka di beberapa halaman", flagged: "ditandai", warned: "diperingatkan",
    reason_hand_raised: "Angkat tangan", reason_offline: "Luring", reason_away: "Menjauh", reason_several_pages: "Terbuka di beberapa halaman",
    reason_flagged: "Ditandai pengawas", for: "selama {d}", since: "sejak {time}",
    col_student: "Siswa", col_status: "Status", col_progress: "Kemajuan", col_question: "Soal", col_left: "Sisa waktu",
    col_away: "Menjauh", col_score: "Nilai", col_flags: "Catatan", col_risk: "Risiko", col_select: "Pilih",
    question_n: "S{n}", answered_of: "{n}/{of}", answered_words: "{n} dari {of} terjawab", away_times: "{n}× · {d}", none: "tidak ada",
    reported: "dilaporkan", over: "habis", select_student: "Pilih {name}", select_all: "Pilih semua yang tampak",
    no_match: "Tidak ada siswa yang cocok. ", empty_exam: "Daftar masih kosong dan belum ada yang masuk. Siswa akan muncul dengan sendirinya.",
    selected: "{n} dipilih", clear: "Batal pilih", act_on: "Tindak {n} tampak", to_all: "Seluruh ujian",
    message: "Pesan", warn: "Peringatkan", pause: "Jeda", resume: "Lanjutkan", update: "Tambah waktu", terminate: "Hentikan", flag: "Tandai",
    to_one: "Untuk {name}", to_some: "Untuk {n} siswa", to_everyone: "Untuk semua peserta ujian, juga yang masuk nanti",
    words: "Isi pesan", words_hint: "Paling banyak 500 karakter. Siswa langsung melihatnya.", warn_hint: "Siswa harus menyatakan sudah membacanya.",
    ready_made: "Siap pakai", canned_1: "Mohon tetap di halaman ujian.", canned_2: "Mohon periksa sambungan internet Anda.",
    canned_3: "Pengawas akan datang ke tempat Anda.", canned_4: "Waktu Anda tinggal sepuluh menit.", minutes_more: "Tambahan menit", lost_minutes: "Luring selama {d} sejauh ini.",
    reason: "Alasan", reason_choose: "Pilih alasan", r_environment: "Ruangan atau kebisingan", r_technical: "Masalah teknis", r_examinee: "Permintaan siswa",
    r_identity: "Pemeriksaan identitas", r_rules: "Tata tertib ujian", r_incident: "Waktu hilang karena gangguan", r_other: "Lainnya", note: "Catatan untuk arsip",
    allowed: "{n} akan menerimanya", waiting_too: "{n} di antaranya tidak tersambung: ditunggu sampai {d}", refused: "{n} akan ditolak",
    refused_not_joined: "belum masuk", refused_submitted: "sudah mengumpulkan", refused_timed_out: "waktu habis",
    refused_terminated: "sudah dihentikan", refused_paused: "sedang dijeda", refused_in_progress: "tidak sedang dijeda", refused_no_end: "waktu akhirnya tidak diketahui",
    type_to_confirm: "Ketik {word} untuk memastikan", send: "Kirim", cancel: "Batal", close: "Tutup",
    cannot_send: "Tidak langsung: perintah dikirim setelah tersambung lagi.",
    commands: "Perintah", hands: "Tangan", messages: "Pesan", inbox: "Kotak masuk", no_hands: "Tidak ada yang angkat tangan.", no_messages: "Belum ada siswa yang menulis.",
    no_commands: "Belum ada perintah sejak halaman ini dibuka.", waiting_for: "menunggu {d}", by_you: "Anda", by_other: "pengawas lain", by_school: "sekolah",
    accepted: "menunggu", sent: "terkirim", delivered: "sampai", confirmed: "dibaca", expired: "kedaluwarsa", refused_short: "ditolak", pending: "belum terkirim",
    reply: "Balas", lower: "Turunkan", raised_hand: "angkat tangan", lowered_hand: "menurunkan tangan",
    details: "Rincian {name}", facts: "Sekarang", id: "Id siswa", connection: "Sambungan", attention_axis: "Perhatian",
    connected: "tersambung", left: "meninggalkan halaman", focused: "di halaman ujian", unknown: "tidak diketahui", reconnects: "Penyambungan ulang", offline_total: "Luring",
    pages_open: "Halaman terbuka", one: "satu", several: "beberapa", attempt: "Percobaan", started: "Mulai", ends: "Selesai",
    show_score: "Lihat", risk_title: "Skor risiko", risk_note: "Jumlah dari fakta, untuk mengurutkan. Bukan vonis.",
    risk_away_count: "kali menjauh", risk_away_time: "lama menjauh", risk_offline_time: "lama luring", risk_none: "Tidak ada yang menambahnya.",
    timeline: "Linimasa", timeline_note: "Catatan layanan, yang terbaru di atas.", timeline_loading: "Membaca catatan layanan.",
    timeline_failed: "Catatan layanan tidak dapat dibaca: {why}. Yang tampak terjadi sejak Anda membuka halaman ini pukul {time}.",
    timeline_empty: "Belum terjadi apa-apa.", messages_failed: "Pesan sebelumnya tidak dapat dibaca: {why}", again: "Coba lagi", earlier: "Tampilkan yang lebih awal", export_failed: "Berkas tidak jadi: {why}",
    talk: "Percakapan", write: "Tulis kepada siswa", previous: "Siswa sebelumnya", next: "Siswa berikutnya",
    cause_silence: "tidak terdengar lagi", cause_left: "halaman ditutup", cause_reported_away: "halaman tidak di depan",
    cause_reported_back: "halaman kembali di depan", cause_heard_again: "terdengar lagi", cause_joined: "membuka ujian", cause_proctor: "oleh pengawas",
    cause_reported_submitted: "mengumpulkan", cause_time_over: "waktu habis", cause_dropped: "sambungan terputus",
    cause_lost_by_us: "layanan memindahkan sambungan", event_attempt: "Percobaan baru dimulai",
    event_session_opened: "Membuka ujian di satu halaman lagi", event_session_evicted: "Halaman keempat dibuka: yang tertua ditutup",
    incident_silence: "{n} siswa hilang bersamaan pukul {time}. Ini satu gangguan: tak seorang pun ditampilkan luring sampai selesai, dan waktunya tidak dihitung.",
    incident_service: "Layanan sendiri terganggu pukul {time}. Tidak dibebankan kepada siswa.", incident_over: "Selesai sejak {time}: {text}",
    dismiss: "Tutup", sound: "Suara", desktop: "Pemberitahuan desktop", alerts_hint: "Paling banyak satu pemberitahuan tiap 10 detik.", theme: "Warna",
    theme_auto: "Ikut sistem", theme_light: "Terang", theme_dark: "Gelap", lang: "Bahasa", density: "Baris", comfortable: "Longgar", compact: "Rapat",
    scores: "Tampilkan nilai", scores_hint: "Mula-mula tersembunyi: pengawas jarang memerlukannya.", shortcuts: "Pintasan satu tombol", desktop_denied: "Peramban tidak mengizinkannya.",
    alert_attention: "{n} siswa perlu perhatian", alert_one: "{name}: {what}", summary: "{offline} luring, {away} menjauh, {hands} angkat tangan, {n} dari {of} melapor.",
    tiles_label: "Peta semua siswa, satu petak tiap siswa. Tombol panah berpindah, Enter membuka rincian.",
    ungrouped: "Tanpa kelompok", k_search: "Cari", k_move: "Baris berikut dan sebelumnya", k_open: "Buka rincian", k_select: "Pilih baris",
    k_message: "Pesan", k_warn: "Peringatkan", k_pause: "Jeda atau lanjutkan", k_ack: "Tandai selesai", k_tiles: "Tabel atau petak", k_freeze: "Tahan urutan",
    k_close: "Tutup, atau batal pilih", k_help: "Bantuan ini",
    about_away: "Menjauh adalah laporan peramban, luring adalah simpulan layanan dari keheningan.",
  },
};

let present = "en";

export const LANGUAGES = { en: "English", id: "Bahasa Indonesia" };

export const language = () => present;

/** Change the language, and every text of the page that is marked with `data-t`. */
export function speak(chosen) {
  present = chosen in WORDS ? chosen : "en";
  document.documentElement.lang = present;
  for (const element of document.querySelectorAll("[data-t]")) element.textContent = t(element.dataset.t);
  for (const element of document.querySelectorAll("[data-t-label]")) {
    const text = t(element.dataset.tLabel);
    element.setAttribute("aria-label", text);
    if (element.matches("button, summary")) element.title = text;
    if ("placeholder" in element && element.placeholder !== undefined) element.placeholder = text;
  }
}

/** A text with its values put in. */
export function t(key, values) {
  const text = WORDS[present][key] ?? WORDS.en[key] ?? key;
  return values ? text.replace(/\{(\w+)\}/g, (_, name) => values[name]) : text;
}

export const has = key => key in WORDS.en;

/** For a test: the keys that a language lacks. */
export function missing() {
  const all = Object.keys(WORDS.en);
  return Object.entries(WORDS).flatMap(([code, words]) => all.filter(key => !(key in words)).map(key => `${code}.${key}`));
}
