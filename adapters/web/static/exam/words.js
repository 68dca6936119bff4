// The words of the demo exam in English and Indonesian, its questions among them.
"use strict";

const WORDS = {
  en: {
    title: "Geography of Indonesia", demo: "demo exam", time_left: "Time left", language: "Language",
    before: "Before you start", lead: "Ten questions, thirty minutes. A proctor can see how you are getting on while you work.",
    seen: "What the proctor sees",
    seen_questions: "which question you are on, and how many you have answered",
    seen_page: "whether this page is in front of you, or you are in another tab or window, and for how long",
    seen_connection: "whether your connection works",
    seen_name: "your name, your time left, that you have handed in, and your result then",
    seen_messages: "messages that you write to the proctor",
    unseen: "What nobody sees",
    unseen_camera: "your camera, microphone or screen",
    unseen_typing: "what you type, copy or paste elsewhere",
    unseen_programs: "which other pages or programs you use",
    fair: "If your connection drops, keep working: your answers stay on this device, and lost minutes can be given back. Being away from the page is a fact that the proctor sees, not a verdict. A person decides what it means, and you can look at your own record at any time.",
    start: "I have read this: start the exam", no_token: "This link has no token. Open the link that your school gave you.",
    back: "Back", next: "Next", questions: "Questions", submit: "Hand in", help: "Help",
    step: "Question {n} of {of}", question_answered: "Question {n}, answered", question_open: "Question {n}, not answered",
    raise: "Raise your hand", lower: "Your hand is up: take it down", write: "Write to the proctor", words: "Message to the proctor", send: "Send",
    record: "Your record", record_hint: "What this page has told the proctor about you.",
    record_started: "started the exam", record_submitted: "handed in", record_left: "left this page", record_back: "came back to this page",
    record_warned: "got a warning: {text}", record_paused: "was paused by a proctor", record_resumed: "was resumed by a proctor",
    record_raised: "raised a hand", record_lowered: "took the hand down", record_other: "a proctor's command: {text}",
    warned: "A message from your proctor", understood: "I understand", more_minutes: "You have {n} more minutes.",
    paused: "The exam is paused", paused_text: "A proctor has paused it. This page goes on by itself when they resume.",
    done: "Handed in. Thank you.", done_text: "You can close this page.",
    ended: "Your attempt was ended", ended_text: "A proctor has ended it. Please speak to them.",
    connecting: "Connecting", live: "Connected", waiting: "No connection: keep working, your answers stay on this device",
    stopped: "Monitoring has ended", token_expired: "Your link has expired. Ask your proctor for a new one; your answers are still here.",
    closed_4009: "The exam was opened in too many windows, and this one was closed.", attempt_over: "A newer attempt has begun elsewhere.",
  },
  id: {
    title: "Geografi Indonesia", demo: "contoh ujian", time_left: "Sisa waktu", language: "Bahasa",
    before: "Sebelum mulai", lead: "Sepuluh soal, tiga puluh menit. Selama Anda mengerjakan, pengawas dapat melihat perkembangan Anda.",
    seen: "Yang dilihat pengawas",
    seen_questions: "soal yang sedang Anda kerjakan, dan berapa yang sudah dijawab",
    seen_page: "apakah halaman ini ada di depan Anda, atau Anda berada di tab atau jendela lain, dan berapa lama",
    seen_connection: "apakah sambungan Anda berfungsi",
    seen_name: "nama, sisa waktu, bahwa Anda sudah mengumpulkan, dan hasilnya kemudian",
    seen_messages: "pesan yang Anda tulis kepada pengawas",
    unseen: "Yang tidak dilihat siapa pun",
    unseen_camera: "kamera, mikrofon, atau layar Anda",
    unseen_typing: "yang Anda ketik, salin, atau tempel di tempat lain",
    unseen_programs: "halaman atau program lain yang Anda pakai",
    fair: "Jika sambungan terputus, teruslah mengerjakan: jawaban Anda tersimpan di perangkat ini, dan menit yang hilang dapat diganti. Meninggalkan halaman adalah fakta yang dilihat pengawas, bukan vonis. Manusialah yang menentukan artinya, dan Anda dapat melihat catatan Anda sendiri kapan saja.",
    start: "Saya sudah membaca: mulai ujian", no_token: "Tautan ini tidak memuat token. Buka tautan yang diberikan sekolah Anda.",
    back: "Kembali", next: "Berikutnya", questions: "Soal", submit: "Kumpulkan", help: "Bantuan",
    step: "Soal {n} dari {of}", question_answered: "Soal {n}, sudah dijawab", question_open: "Soal {n}, belum dijawab",
    raise: "Angkat tangan", lower: "Tangan Anda terangkat: turunkan", write: "Tulis kepada pengawas", words: "Pesan kepada pengawas", send: "Kirim",
    record: "Catatan Anda", record_hint: "Yang disampaikan halaman ini kepada pengawas tentang Anda.",
    record_started: "memulai ujian", record_submitted: "mengumpulkan", record_left: "meninggalkan halaman ini", record_back: "kembali ke halaman ini",
    record_warned: "mendapat peringatan: {text}", record_paused: "dijeda oleh pengawas", record_resumed: "dilanjutkan oleh pengawas",
    record_raised: "angkat tangan", record_lowered: "menurunkan tangan", record_other: "perintah pengawas: {text}",
    warned: "Pesan dari pengawas", understood: "Saya mengerti", more_minutes: "Anda mendapat tambahan {n} menit.",
    paused: "Ujian dijeda", paused_text: "Pengawas menjedanya. Halaman ini berlanjut sendiri setelah dilanjutkan.",
    done: "Sudah dikumpulkan. Terima kasih.", done_text: "Anda boleh menutup halaman ini.",
    ended: "Ujian Anda dihentikan", ended_text: "Pengawas menghentikannya. Silakan berbicara dengan pengawas.",
    connecting: "Menyambung", live: "Tersambung", waiting: "Tidak ada sambungan: teruslah mengerjakan, jawaban Anda tersimpan di perangkat ini",
    stopped: "Pemantauan telah berakhir", token_expired: "Tautan Anda sudah kedaluwarsa. Mintalah yang baru kepada pengawas; jawaban Anda masih ada di sini.",
    closed_4009: "Ujian dibuka di terlalu banyak jendela, dan yang ini ditutup.", attempt_over: "Percobaan yang lebih baru sudah dimulai di tempat lain.",
  },
};

/** Question, choices, and which one is right; one list for each language, in the same order. */
const QUESTIONS = {
  en: [
    ["Which island of Indonesia has the most inhabitants?", ["Sumatra", "Java", "Borneo", "Sulawesi"], 1],
    ["Which is the highest mountain of Indonesia?", ["Kerinci", "Rinjani", "Puncak Jaya", "Semeru"], 2],
    ["How many time zones does Indonesia have?", ["One", "Two", "Three", "Four"], 2],
    ["Which strait lies between Java and Sumatra?", ["Sunda", "Makassar", "Lombok", "Malacca"], 0],
    ["Which is the largest lake of Indonesia?", ["Poso", "Toba", "Singkarak", "Tempe"], 1],
    ["On which island is the city of Makassar?", ["Sulawesi", "Timor", "Flores", "Java"], 0],
    ["Which city is being built as the new capital?", ["Bandung", "Nusantara", "Surabaya", "Medan"], 1],
    ["Which line crosses the archipelago?", ["The Tropic of Cancer", "The Equator", "The Arctic Circle", "The date line"], 1],
    ["Which animal lives in the wild only on a few Indonesian islands?", ["Tiger", "Komodo dragon", "Elephant", "Crocodile"], 1],
    ["Which volcano's eruption in 1883 was heard thousands of kilometres away?", ["Krakatau", "Merapi", "Agung", "Bromo"], 0],
  ],
  id: [
    ["Pulau mana di Indonesia yang paling banyak penduduknya?", ["Sumatra", "Jawa", "Kalimantan", "Sulawesi"], 1],
    ["Gunung mana yang tertinggi di Indonesia?", ["Kerinci", "Rinjani", "Puncak Jaya", "Semeru"], 2],
    ["Berapa zona waktu yang dimiliki Indonesia?", ["Satu", "Dua", "Tiga", "Empat"], 2],
    ["Selat mana yang terletak di antara Jawa dan Sumatra?", ["Sunda", "Makassar", "Lombok", "Malaka"], 0],
    ["Danau mana yang terluas di Indonesia?", ["Poso", "Toba", "Singkarak", "Tempe"], 1],
    ["Di pulau mana kota Makassar berada?", ["Sulawesi", "Timor", "Flores", "Jawa"], 0],
    ["Kota mana yang dibangun sebagai ibu kota baru?", ["Bandung", "Nusantara", "Surabaya", "Medan"], 1],
    ["Garis mana yang melintasi Nusantara?", ["Garis Balik Utara", "Khatulistiwa", "Lingkaran Arktik", "Garis tanggal"], 1],
    ["Hewan mana yang hidup liar hanya di beberapa pulau Indonesia?", ["Harimau", "Komodo", "Gajah", "Buaya"], 1],
    ["Letusan gunung mana pada tahun 1883 yang terdengar ribuan kilometer jauhnya?", ["Krakatau", "Merapi", "Agung", "Bromo"], 0],
  ],
};

let language = "en";

/** A text with its values put in. */
function t(key, values = {}) {
  return WORDS[language][key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

/** Change the language, and every text of the page that is marked with `data-t`. */
function speak(chosen) {
  language = chosen in WORDS ? chosen : "en";
  document.documentElement.lang = language;
  document.title = `${t("title")}: ${t("demo")}`;
  for (const element of document.querySelectorAll("[data-t]")) element.textContent = t(element.dataset.t);
  for (const element of document.querySelectorAll("[data-t-label]")) element.setAttribute("aria-label", t(element.dataset.tLabel));
  for (const element of document.querySelectorAll("[data-t-placeholder]")) element.placeholder = t(element.dataset.tPlaceholder);
}
