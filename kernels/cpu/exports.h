// exports.h: the door through which Python starts a kernel: arguments as in cuLaunchKernel, one pointer to each value.
#pragma once

// Where this library begins and where its .bss lies, from the linker.
extern "C" {
extern unsigned char __ehdr_start __attribute__((visibility("hidden")));
extern unsigned char __bss_start __attribute__((visibility("hidden")));
extern unsigned char _end __attribute__((visibility("hidden")));
}

// One letter per parameter, NumPy's type codes; before it p for a pointer, c for a pointer to const.
template <class T> constexpr char minidl_code() {
    using U = std::remove_cv_t<std::remove_pointer_t<T>>;
    if (std::is_same_v<U, float>) return 'f';
    if (std::is_same_v<U, double>) return 'd';
    if (std::is_same_v<U, bool>) return '?';
    if (!std::is_integral_v<U>) return 'x';
    const char* codes = std::is_signed_v<U> ? "bhiq" : "BHIQ";
    return codes[sizeof(U) == 1 ? 0 : sizeof(U) == 2 ? 1 : sizeof(U) == 4 ? 2 : 3];
}
template <class T> constexpr char minidl_pointer() {
    return !std::is_pointer_v<T> ? 'v' : std::is_const_v<std::remove_pointer_t<T>> ? 'c' : 'p';
}

template <class... A> struct MinidlKernel {
    void (*function)(A...);
    void** arguments;
    template <size_t... I> MINIDL_OURS inline void call(std::index_sequence<I...>) const { function(*(A*)arguments[I]...); }
    MINIDL_OURS static void run(void* self) { ((const MinidlKernel*)self)->call(std::index_sequence_for<A...>{}); }
    inline static constexpr char signature[] = {minidl_pointer<A>()..., minidl_code<A>()..., 0};
};
template <class... A> MINIDL_OURS static const char* minidl_signature(void (*)(A...)) { return MinidlKernel<A...>::signature; }
template <class... A> MINIDL_OURS static int minidl_start(void (*function)(A...), const MinidlLaunch* how, MinidlReport* report) {
    static const MinidlImage image = {&__ehdr_start, &__bss_start, &_end};
    MinidlKernel<A...> kernel = {function, how->arguments};
    return minidl_launch(MinidlKernel<A...>::run, &kernel, how, &image, report);
}
#define MINIDL_EXPORT(NAME, MAX_THREADS) \
    extern "C" __attribute__((visibility("default"))) int minidl_run_##NAME(MinidlLaunch* how, MinidlReport* report) { \
        how->max_threads = MAX_THREADS; \
        return minidl_start(NAME, how, report); \
    } \
    extern "C" __attribute__((visibility("default"))) const char* minidl_signature_##NAME() { return minidl_signature(NAME); }
